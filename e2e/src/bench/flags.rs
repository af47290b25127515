//! Settings of the benchmark.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Weft against the direct path (and a stock ztunnel) in one interleaved run, in network namespaces of its own.
///
/// The programs are those that lie beside this one, or in $WEFT_BIN_DIR: for figures worth anything a release build
/// (`cargo build --release --workspace --bins`; `make bench` does that). As root, or as an ordinary user where user
/// namespaces are allowed. With WEFT_PEER_ZTUNNEL=/path/to/ztunnel a stock ztunnel is measured in the same run.
///
/// The table goes to standard output, progress to standard error, everything to target/bench/l4.json.
/// Compare ratios, and only within one run: absolute values are those of the machine and the hour.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-bench")]
pub struct BenchFlags {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,...")]
    pub only: Vec<Part>,
    /// Rounds: each measures every load once with every peer
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// KiB that pods write and read at once in bulk
    #[arg(long, value_name = "KIB", default_value_t = 16)]
    pub piece: usize,
    /// Open connections for the memory figures
    #[arg(long, default_value_t = 10_000)]
    pub held: usize,
    /// Seconds after the open connections closed, until memory is read again
    #[arg(long, value_name = "SECONDS", default_value_t = 12.0)]
    pub give_back: f64,
    /// Open that many connections to this address, say how long it took, and keep them until standard input ends
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub hold_open: Option<IpAddr>,
    /// About a minute: one round of a second, no catalog, no count of allocations
    #[arg(long)]
    pub quick: bool,
    /// How the results are printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// Where all samples are written; default: bench/l4.json in $CARGO_TARGET_DIR or ./target
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// More words for every `weft-node-agent proxy`, as one text
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    pub proxy: String,
    /// Keep logs, configuration and data in this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// After the start of everything, put load on one part only and do not end until Ctrl-C: for `perf` and `strace`
    #[arg(long, value_enum, value_name = "PART")]
    pub profile: Option<Part>,
    /// Both pods on one node in `--profile`
    #[arg(long)]
    pub same_node: bool,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Requests on 32 kept connections, closed loop
    Requests,
    /// 1000 requests a second, open loop
    Rate,
    /// New connections, 16 workers
    Connections,
    /// Echo on one connection
    Echo,
    /// Echo on 64 connections
    Echo64,
    /// One stream of bytes
    Bulk1,
    /// Four streams of bytes
    Bulk4,
    /// Resident memory: idle, with open connections, afterwards
    Memory,
    /// Allocations per request and per connection
    Allocations,
    /// The same with a catalog of 10 and of 100,000 workloads
    Catalog,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// What the file holds
    Json,
}

/// The loads that compare a path, in the order of the table.
pub const LOADS: [Part; 7] =
    [Part::Requests, Part::Rate, Part::Connections, Part::Echo, Part::Echo64, Part::Bulk1, Part::Bulk4];

impl BenchFlags {
    /// Is this part asked for?
    #[must_use]
    pub fn wants(&self, part: Part) -> bool {
        let dear = matches!(part, Part::Allocations | Part::Catalog);
        if self.only.is_empty() { !(self.quick && dear) } else { self.only.contains(&part) }
    }

    /// How many rounds.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    /// Bytes of one write of bulk. 16 KiB by default: a frame of HTTP/2 and gRPC, a record of TLS.
    #[must_use]
    pub fn piece(&self) -> usize {
        self.piece.max(1) << 10
    }

    /// How long a measurement takes.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { self.seconds.min(1.0) } else { self.seconds }.max(0.05))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let parse = |words: &str| BenchFlags::parse_from(std::iter::once("weft-bench").chain(words.split_whitespace()));
        let all = parse("");
        assert!(all.wants(Part::Catalog) && all.wants(Part::Echo) && all.rounds() == 3);
        let quick = parse("--quick --rounds 9");
        assert!(!quick.wants(Part::Catalog) && quick.wants(Part::Memory) && quick.rounds() == 1);
        assert_eq!(quick.window(), Duration::from_secs(1));
        let some = parse("--quick --only catalog,echo64 --seconds 0.2");
        assert!(some.wants(Part::Catalog) && some.wants(Part::Echo64) && !some.wants(Part::Echo));
        assert_eq!(some.window(), Duration::from_millis(200));
    }
}
