//! Reads what a shopper prints, and compares two moments.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::process::Process;
use weft_testkit::wait;

use crate::shop::Totals;

/// A running shopper.
#[derive(Debug)]
pub(crate) struct Shopper {
    process: Process,
}

/// What happened between two moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Since {
    /// Purchases answered.
    pub(crate) ok: u64,
    /// Purchases failed.
    pub(crate) failed: u64,
    /// Words of failures that were kept.
    pub(crate) errors: Vec<String>,
}

impl Shopper {
    pub(super) fn new(process: Process) -> Self {
        Self { process }
    }

    /// The newest complete line; zero before the first.
    ///
    /// # Errors
    /// A line that is not the shopper's.
    pub(crate) fn totals(&self) -> Result<Totals> {
        let output = self.process.output();
        let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
        match complete.rsplit('\n').next().filter(|line| !line.is_empty()) {
            Some(line) => serde_json::from_str(line).with_context(|| self.process.tail()),
            None => Ok(Totals::default()),
        }
    }

    /// What happened since `before`.
    ///
    /// # Errors
    /// As [`Shopper::totals`].
    pub(crate) fn since(&self, before: &Totals) -> Result<Since> {
        let now = self.totals()?;
        let new = now.errors.iter().filter(|error| error.failed_ms > before.at_ms);
        let errors = new
            .map(|error| format!("begun at {} ms, failed at {} ms: {}", error.begun_ms, error.failed_ms, error.error));
        Ok(Since { ok: now.ok - before.ok, failed: now.failed - before.failed, errors: errors.collect() })
    }

    /// Waits until `count` purchases have been answered since `before`.
    ///
    /// # Errors
    /// Fewer at the deadline; with the first failures.
    pub(crate) fn wait_for(&self, before: &Totals, count: u64, deadline: Duration) -> Result<()> {
        wait::eventually(deadline, &format!("{count} more purchases"), || {
            let since = self.since(before)?;
            ensure!(since.ok >= count, "{} ok, {} failed {:?}", since.ok, since.failed, since.errors);
            anyhow::Ok(())
        })
    }

    /// SIGTERM, the end of what is in flight, the last totals.
    ///
    /// # Errors
    /// It does not end in time, or not cleanly.
    pub(crate) fn stop(&mut self) -> Result<Totals> {
        let status = self.process.terminate(Duration::from_secs(15))?;
        let totals = self.totals()?;
        ensure!(status.success() && totals.last, "the shopper ended with {status}\n{}", self.process.tail());
        Ok(totals)
    }
}
