//! Walks the schedule, checks after each fault, and gives the verdict.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weft_testkit::wait;

use super::crowd::crowd;
use super::flags::SoakFlags;
use super::herd::{be, raise_open_files};
use super::inflict::inflict;
use super::schedule::{Step, schedule};
use super::stage::{RECOVERY, Stage, Target};
use super::traffic::{Traffic, there_and_back};

/// Runs the soak inside the private namespaces.
#[must_use]
pub fn run(flags: &SoakFlags) -> ExitCode {
    if let Some(kind) = flags.herd {
        return match be(flags, kind) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "herd: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let seed = flags.seed.unwrap_or_else(rand::random);
    let steps = schedule(seed, Duration::from_secs(flags.seconds));
    say(&format!("soak: {} faults; again with --seed {seed} --seconds {}", steps.len(), flags.seconds));
    if flags.list {
        steps.iter().enumerate().for_each(|(index, step)| say(&words(index, step)));
        return ExitCode::SUCCESS;
    }
    raise_open_files();
    let outcome = if flags.seconds == 0 { Ok(()) } else { faults(flags, &steps) };
    match outcome.and_then(|()| if flags.crowd { crowd(flags, &|line| say(&format!("  {line}"))) } else { Ok(()) }) {
        Ok(()) => {
            say(&format!("soak: held; {} faults, seed {seed}", steps.len()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("soak: FAILED: {error:#}"));
            say(&format!("soak: again with --seed {seed} --seconds {}", flags.seconds));
            ExitCode::FAILURE
        }
    }
}

fn faults(flags: &SoakFlags, steps: &[Step]) -> Result<()> {
    let mut stage = Stage::build(flags).context("the stage cannot be built")?;
    perform(flags, &mut stage, steps).inspect_err(|_| say(&stage.last_words()))
}

fn perform(flags: &SoakFlags, stage: &mut Stage, steps: &[Step]) -> Result<()> {
    for (name, target) in [("other", stage.far), ("same", stage.near)] {
        transfer(flags, stage, name, target)?;
    }
    let traffic = Traffic::start(&stage.client, (stage.far, stage.near), stage.pool, flags.bulk)?;
    traffic.recovers(RECOVERY).context("before any fault")?;
    for (index, step) in steps.iter().enumerate() {
        wait::pause(step.after);
        say(&words(index, step));
        inflict(stage, step.fault, step.lasts).with_context(|| format!("{}", step.fault))?;
        let mended = Instant::now();
        let held =
            traffic.recovers(RECOVERY).and_then(|()| traffic.nothing_wrong()).and_then(|()| stage.nothing_in_plain());
        held.with_context(|| format!("after: {}", step.fault))?;
        say(&format!("     recovered {:.1} s after it ended", mended.elapsed().as_secs_f64()));
    }
    stage.wait_captured()?;
    traffic.lines().iter().for_each(|line| say(&format!("  {line}")));
    Ok(())
}

fn transfer(flags: &SoakFlags, stage: &Stage, name: &str, target: Target) -> Result<()> {
    if flags.transfer == 0 {
        return Ok(());
    }
    let begin = Instant::now();
    there_and_back(&stage.client, target.echo, flags.transfer << 20).context("the transfer with checksum")?;
    let seconds = begin.elapsed().as_secs_f64();
    say(&format!(
        "     {} MiB there and back on one connection, {name} node: every byte right, {seconds:.1} s",
        flags.transfer
    ));
    Ok(())
}

fn words(index: usize, step: &Step) -> String {
    let Step { after, fault, lasts } = step;
    format!("{:3}. after {:.1} s: {fault}, for {:.1} s", index + 1, after.as_secs_f64(), lasts.as_secs_f64())
}

fn say(line: &str) {
    // A reader that has gone does not stop the run.
    let _ = writeln!(std::io::stdout(), "{line}");
}
