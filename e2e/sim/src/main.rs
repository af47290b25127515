//! `weft-sim`: runs many seeds, or one of them again.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use weft_sim::plant::Plant;
use weft_sim::run::run;

/// Simulates control plane, agents and capture with faults at every step, and holds Weft's promises after each.
#[derive(Debug, Parser)]
#[command(
    name = "weft-sim",
    after_help = "Examples:\n  weft-sim --runs 10000\n  weft-sim --seed 4711 --steps 2000 --trace"
)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Steps of each before faults are healed.
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Plant this fault: the simulation must find it.
    #[arg(long)]
    plant: Option<Plant>,
    /// Print every step of a failure, not only the last ones.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    for seed in options.seed..options.seed.saturating_add(options.runs) {
        if let Err(failure) = run(seed, options.steps, options.plant) {
            let steps: &[_] = if options.trace { &failure.trace } else { &[] };
            // Nobody is left to tell when standard error is closed.
            let _ = steps.iter().try_for_each(|step| writeln!(stderr(), "{step:?}"));
            let _ = writeln!(stderr(), "seed {seed}: {failure}");
            return ExitCode::FAILURE;
        }
    }
    let Options { seed, runs, steps, .. } = options;
    let _ = writeln!(stdout(), "{runs} runs from seed {seed}, {steps} steps each: every promise was kept");
    ExitCode::SUCCESS
}
