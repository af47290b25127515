//! For the moment when the system gives no descriptor: one that is kept, and a count of how often that was.

use std::cell::{Cell, RefCell};
use std::os::unix::net::UnixDatagram;

use prometheus_client::metrics::counter::Counter;
use weft_runtime::metrics::Registry;

/// What the accept loops of all workers count.
#[derive(Debug, Clone, Default)]
pub struct AcceptMetrics {
    pauses: Counter,
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

    /// One more rest.
    pub fn paused(&self) {
        self.pauses.inc();
    }
}

/// A descriptor that is kept so that a connection can be accepted, and reset, when the system gives none: its client then
/// knows at once, instead of waiting in a queue that nobody empties.
#[derive(Debug)]
pub struct Reserve {
    kept: RefCell<Option<UnixDatagram>>,
    /// That there are none was said, and has been so since.
    said: Cell<bool>,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { kept: RefCell::new(UnixDatagram::unbound().ok()), said: Cell::new(false) }
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

    /// Whether the shortage is news. Every listener of a worker meets it, many times a second; it is said once.
    pub fn is_news(&self) -> bool {
        !self.said.replace(true)
    }

    /// Descriptors are there again; says whether there were none.
    pub fn is_over(&self) -> bool {
        self.said.replace(false)
    }
}
