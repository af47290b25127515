//! The time of day as a value that is passed in, so that expiry and renewal are tested without waiting.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

/// Tells the time of day; certificates are valid by it.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> SystemTime;
}

/// A clock that is handed around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The machine's clock, shared.
#[must_use]
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}
