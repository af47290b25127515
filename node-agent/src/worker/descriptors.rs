//! How many descriptors this process may have, now: somebody may lower the limit of a running process, and raise it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

/// Shared by all workers. Read for each connection, so it is a number in memory; the kernel is asked when it looks as if
/// there were none left ([`Descriptors::look`]).
#[derive(Debug, Clone)]
pub struct Descriptors {
    most: u64,
    now: Arc<AtomicU64>,
}

impl Descriptors {
    /// As many as this, or as few as the kernel says later.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { most, now: Arc::new(AtomicU64::new(most)) }
    }

    /// As it was known last.
    #[must_use]
    pub fn known(&self) -> u64 {
        // A number by itself: whoever reads it a moment late sheds one connection more or less.
        self.now.load(Ordering::Relaxed)
    }

    /// Asks the kernel (some 100 ns). Never more than at the beginning: what follows from that is fixed.
    pub fn look(&self) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(self.most);
        self.now.store(limit.min(self.most), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Descriptors;

    #[test]
    fn a_look_never_finds_more_than_at_the_beginning() {
        let few = Descriptors::new(3);
        let other = few.clone();
        few.look();
        assert_eq!((few.known(), other.known()), (3, 3));
        let many = Descriptors::new(u64::MAX);
        many.look();
        assert_eq!(Some(many.known()), rustix::process::getrlimit(rustix::process::Resource::Nofile).current);
    }
}
