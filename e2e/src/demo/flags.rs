//! Settings of the demo.

use std::path::PathBuf;

use clap::Parser;

/// Two nodes, real programs, one command: what Weft does, shown and checked
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-demo")]
pub struct DemoFlags {
    /// Stay up before the mesh is taken away again, and say what to try; Ctrl-C goes on to the end
    #[arg(long)]
    pub hold: bool,
    /// Keep logs, configuration and data in this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Purchases per second of each of the two shoppers
    #[arg(long, default_value_t = 40)]
    pub rate: u32,
    /// Stop after this step (1 needs none of Weft's programs)
    #[arg(long, value_name = "STEP", default_value_t = 7)]
    pub until: usize,
}
