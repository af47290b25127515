//! The command line of the soak.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

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
    /// At the end, on a fresh mesh: 10,000 connections idle and active, a pod that floods, and what its neighbours feel of it. With
    /// `--seconds 0`: nothing else.
    #[arg(long)]
    pub crowd: bool,
    /// Of the crowd only this part: two-nodes, one-node, flood, burst, busy, unread.
    #[arg(long, value_name = "PART")]
    pub only: Option<String>,
    /// Keep logs, configuration and state in this directory.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// Print the schedule and end.
    #[arg(long)]
    pub list: bool,
    /// Be many connections of one pod: says what it did, one line for each it reads.
    #[arg(long, value_enum, hide = true)]
    pub herd: Option<HerdKind>,
    /// To where.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub herd_at: Option<IpAddr>,
    /// How many.
    #[arg(long, default_value_t = 0, hide = true)]
    pub herd_count: usize,
    /// How many of them are kept.
    #[arg(long, default_value_t = 0, hide = true)]
    pub herd_keep: usize,
}

/// What many connections do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum HerdKind {
    /// They are opened, kept, and asked all at once when a line comes.
    Hold,
    /// They are opened as fast as it goes.
    Burst,
}
