//! For the moment when the system gives no descriptor: one that is kept, and a count of how often that was.

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use weft_runtime::metrics::Registry;

/// A shortage is over when none was met for so long. 1 s: twenty rests of a listener.
const OVER: Duration = Duration::from_secs(1);

/// What the accept loops of all workers count and know together.
#[derive(Debug, Clone, Default)]
pub struct AcceptMetrics {
    pauses: Counter,
    /// When a shortage was met last, while there is one.
    short: Arc<Mutex<Option<Instant>>>,
}

impl AcceptMetrics {
    /// Registered.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        let help = "Rests of a listener because the system gave no descriptor for the next connection";
        registry.register(|registry| registry.register("weft_accept_pauses", help, metrics.pauses.clone()));
        metrics
    }

    /// One more rest, because there was none; says whether that is news. Every listener of every worker meets the same shortage,
    /// many times a second, and one that gets a descriptor now and then is not over it: it is said once.
    #[must_use]
    pub fn paused(&self, now: Instant) -> bool {
        self.pauses.inc();
        self.with(|short| short.replace(now).is_none())
    }

    /// Whether there is no shortage any more: `Some(true)` for the first who asks then.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> Option<bool> {
        self.with(|short| match *short {
            None => Some(false),
            Some(met) if now.saturating_duration_since(met) < OVER => None,
            Some(_) => Some(short.take().is_some()),
        })
    }

    fn with<R>(&self, look: impl FnOnce(&mut Option<Instant>) -> R) -> R {
        // One value, whole at any time.
        look(&mut self.short.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A descriptor that is kept so that a connection can be accepted, and reset, when the system gives none: its client then
/// knows at once, instead of waiting in a queue that nobody empties.
#[derive(Debug)]
pub struct Reserve {
    kept: RefCell<Option<UnixDatagram>>,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { kept: RefCell::new(UnixDatagram::unbound().ok()) }
    }
}

impl Reserve {
    /// Does something with one more descriptor than the system gives. `None` if the reserve is used up as well.
    pub fn spend<R>(&self, act: impl FnOnce() -> R) -> Option<R> {
        self.kept.borrow_mut().take()?;
        let done = act();
        self.renew();
        Some(done)
    }

    /// Takes the reserve back, if there is one to be had.
    pub fn renew(&self) {
        let mut kept = self.kept.borrow_mut();
        if kept.is_none() {
            *kept = UnixDatagram::unbound().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{AcceptMetrics, OVER};

    #[test]
    fn a_shortage_is_said_once_by_all_workers_together() {
        let (one, begin) = (AcceptMetrics::default(), Instant::now());
        let other = one.clone();
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(one.is_over(begin), Some(false), "there is none");
        assert!(one.paused(begin));
        assert!(!other.paused(at(10)) && !one.paused(at(500)));
        assert_eq!(one.is_over(at(501)), None, "one connection was taken, and others wait");
        let later = at(500) + OVER;
        assert_eq!((one.is_over(later), other.is_over(later)), (Some(true), Some(false)));
        assert!(other.paused(later), "another one");
    }
}
