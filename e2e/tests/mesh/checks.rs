//! Named checks inside one test: all are tried, and the failure names each that did not hold.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;

use crate::world::World;

/// What was tried up to now.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    held: Vec<String>,
    failed: Vec<String>,
}

impl Checks {
    /// Tries one.
    pub(crate) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        match work() {
            Ok(()) => self.held.push(format!("{name} ({:?})", start.elapsed())),
            Err(error) => self.failed.push(format!("{name} ({:?}): {error:#}", start.elapsed())),
        }
    }

    /// The verdict.
    ///
    /// # Panics
    /// When one did not hold: with all of those, and the last words of the programs.
    pub(crate) fn end(self, world: &World) {
        let mut text = String::new();
        for held in &self.held {
            let _ = writeln!(text, "held    {held}");
        }
        for failed in &self.failed {
            let _ = writeln!(text, "FAILED  {failed}");
        }
        // Seen with --nocapture, and in the output of a test that fails.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        assert!(self.failed.is_empty(), "{} checks did not hold:\n{text}\n{}", self.failed.len(), world.last_words());
    }
}
