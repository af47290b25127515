//! Waiting for a condition with a deadline: the only place of the laboratory that sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long one poll rests. Short against every deadline used (seconds), long enough to cost no processor time.
const POLL: Duration = Duration::from_millis(5);

/// Rests the calling thread.
#[expect(
    clippy::disallowed_methods,
    reason = "test equipment: pacing of load and polling with a deadline, never on a data worker"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Calls `attempt` until it returns `Ok`, and gives that value.
///
/// # Errors
/// After `deadline`: an error that names `what` was awaited and the last refusal.
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
            Err(_) => pause(POLL),
        }
    }
}

/// Waits until `condition` is true.
///
/// # Errors
/// After `deadline`: an error that names `what` was awaited.
pub fn until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually(deadline, what, || if condition() { Ok(()) } else { Err("not yet so") })
}
