//! Runs threads of load in a pod, and measures a window in their middle: not their beginning, not their end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weft_testkit::netns::spawn_in_netns;
use weft_testkit::wait;

use crate::bench::statistics::Histogram;

/// A connection or an answer that takes longer counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// 0: what ends now does not count yet.
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// Tells the threads of a load where they are.
#[derive(Debug, Default)]
pub struct Control {
    phase: AtomicU8,
    warm: AtomicUsize,
}

impl Control {
    /// Counts an exchange that took that long, if it ends within the window.
    pub fn done(&self, tally: &mut Tally, took: Duration) {
        match self.phase.load(Ordering::Relaxed) {
            MEASURED => tally.latency.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
            OVER => {}
            _ => {
                self.warm.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What is done from now on counts.
    pub fn measure(&self) {
        self.phase.store(MEASURED, Ordering::Relaxed);
    }

    /// Nothing counts any more, and it is time to end.
    pub fn end(&self) {
        self.phase.store(OVER, Ordering::Relaxed);
    }

    /// Waits until so many exchanges are done.
    ///
    /// # Errors
    /// They are not, within a while.
    pub fn wait_warm(&self, count: usize) -> Result<()> {
        wait::until(PATIENCE, &format!("{count} exchanges"), || self.warm.load(Ordering::Relaxed) >= count)
    }

    /// Is it time to end?
    #[must_use]
    pub fn over(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == OVER
    }
}

/// What a thread has done within the window.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Times of what was done.
    pub latency: Histogram,
    /// What failed, at any time.
    pub failed: u64,
    /// The first failure in words.
    pub error: Option<String>,
}

impl Tally {
    /// Counts a failure.
    pub fn failed(&mut self, error: &std::io::Error) {
        self.failed += 1;
        self.error.get_or_insert_with(|| error.to_string());
    }

    fn merge(&mut self, other: Self) {
        self.latency.merge(&other.latency);
        self.failed += other.failed;
        self.error = self.error.take().or(other.error);
    }
}

/// A kind of load: what one thread does until it is over.
pub type Work = Arc<dyn Fn(&Arc<Control>, SocketAddr) -> Tally + Send + Sync>;

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Load that does not count yet: connections, tunnels, caches, frequency.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
}

/// What happened within the window.
#[derive(Clone, Debug)]
pub struct Measured<R> {
    /// Of all threads.
    pub tally: Tally,
    /// Seconds of the window, as they were.
    pub seconds: f64,
    /// What `read` gave at its beginning.
    pub before: R,
    /// And at its end.
    pub after: R,
}

/// Runs `work` on `threads` threads inside `netns` against `target`.
///
/// # Errors
/// The namespace is gone, or nothing at all was done.
pub fn drive<R>(
    netns: &str,
    target: SocketAddr,
    (threads, work): (usize, &Work),
    timing: Timing,
    read: impl Fn() -> Result<R>,
) -> Result<Measured<R>> {
    let control = Arc::new(Control::default());
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let (control, work) = (Arc::clone(&control), Arc::clone(work));
            spawn_in_netns(netns, move || work(&control, target))
        })
        .collect::<Result<_>>()?;
    // A first connection may take long on a busy machine. Without any exchange the window shows what is wrong.
    let _ = control.wait_warm(threads);
    wait::pause(timing.warm_up);
    let before = read()?;
    let begin = Instant::now();
    control.measure();
    wait::pause(timing.window);
    control.end();
    let seconds = begin.elapsed().as_secs_f64();
    let after = read()?;
    let mut tally = Tally::default();
    for thread in running {
        match thread.join() {
            Ok(part) => tally.merge(part),
            Err(_) => bail!("a thread of the load panicked"),
        }
    }
    Ok(Measured { tally, seconds, before, after })
}

/// Turns a tally without anything done into an error.
///
/// # Errors
/// Nothing was done; with the first failure.
pub fn something_done(tally: &Tally, what: &str) -> Result<()> {
    (tally.latency.count() > 0)
        .then_some(())
        .with_context(|| format!("{what}: nothing done, {} failed: {:?}", tally.failed, tally.error))
}
