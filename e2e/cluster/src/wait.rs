//! Waiting for a condition with a deadline: the only place here that sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Rests the calling thread.
#[expect(clippy::disallowed_methods, reason = "a command line tool without a runtime, polling with a deadline")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Calls `attempt` every 100 ms until it returns `Ok`.
///
/// # Errors
/// After `deadline`: names `what` was awaited, and the last refusal.
pub fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(refusal) if start.elapsed() >= deadline => {
                return Err(anyhow!("waited {deadline:?} in vain for {what}: {refusal:#}"));
            }
            Err(_) => pause(Duration::from_millis(100)),
        }
    }
}
