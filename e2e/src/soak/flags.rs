//! The command line of the soak.

use std::path::PathBuf;

use clap::Parser;

/// Runs the mesh on two nodes under checked traffic and random faults, and says whether it held.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-soak", version)]
pub struct SoakFlags {
    /// What the faults are drawn from; a run with the same seed and length has the same faults at the same times.
    /// Default: one of its own, which it prints.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long faults come, seconds.
    #[arg(long, default_value_t = 180)]
    pub seconds: u64,
    /// Bytes of each bulk transfer, in MiB.
    #[arg(long, default_value_t = 64)]
    pub bulk: u64,
    /// MiB that one connection carries there and back, every byte checked, to each node before the faults begin.
    #[arg(long, default_value_t = 0)]
    pub transfer: u64,
    /// Measure at the end what a pod feels of a neighbour that opens connections without end.
    #[arg(long)]
    pub flood: bool,
    /// Keep logs, configuration and state in this directory.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// Print the schedule and end.
    #[arg(long)]
    pub list: bool,
}
