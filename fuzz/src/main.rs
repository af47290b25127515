//! `weft-fuzz`: runs the targets on any toolchain, and replays a find.

#![expect(clippy::print_stdout, reason = "a command line tool: what it found is its output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use weft_fuzz::runner::{Report, run};
use weft_fuzz::targets::{TARGETS, Target, by_name};

/// Tries everything that reads what strangers write with inputs that nobody meant.
#[derive(Debug, Parser)]
#[command(name = "weft-fuzz")]
enum Command {
    /// Mutates the seeds of each target for a while.
    Run {
        /// Which; all if none is named.
        targets: Vec<String>,
        /// For how long each, in seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Repeats the run that printed it.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs one input, without catching its panic.
    Replay {
        /// Which target.
        target: String,
        /// The input.
        file: PathBuf,
    },
    /// Names the targets.
    List,
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::List => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        Command::Replay { target, file } => {
            let outcome = (named(&target)?.run)(&std::fs::read(&file).with_context(|| file.display().to_string())?);
            println!("{target} holds: {outcome:?}");
        }
        Command::Run { targets, seconds, seed } => {
            let chosen: Vec<&'static Target> = match targets.as_slice() {
                [] => TARGETS.iter().collect(),
                names => names.iter().map(|name| named(name)).collect::<Result<_>>()?,
            };
            let seed = seed.unwrap_or_else(rand::random);
            println!("seed {seed}: {} targets, {seconds} s each", chosen.len());
            // The text of a panic is in the report.
            std::panic::set_hook(Box::new(|_| {}));
            let mut clean = true;
            for target in chosen {
                let report = run(target, seed, Duration::from_secs(seconds))?;
                say(target, &report);
                clean &= report.find.is_none();
            }
            return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> Result<&'static Target> {
    by_name(name).with_context(|| format!("no target '{name}'; `weft-fuzz list` names them"))
}

fn say(target: &Target, report: &Report) {
    let Target { name, .. } = target;
    println!("{name:15} {:9} inputs, {:5} outcomes", report.tried, report.outcomes);
    if let Some(find) = &report.find {
        let path = find.path.display();
        println!("    DOES NOT HOLD: {}", find.what);
        println!("    replay: cargo run -p weft-fuzz --locked -- replay {name} {path}");
        println!(
            "    then keep it: mkdir -p fuzz/regressions/{name} && mv {path} fuzz/regressions/{name}/SAYS-WHAT-IT-IS"
        );
    }
}
