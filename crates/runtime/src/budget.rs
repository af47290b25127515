//! Bytes that many tasks of one process hold together, bounded: what is buffered for connections counts here, wherever it is.
//!
//! ```text
//! 0 ............ used ........... 3/4 ................ limit
//!   take, try_take: yes           is_tight: windows    try_take: no (new work is shed)
//!                                 are withheld
//! ```
//!
//! Bytes that have arrived already are counted by [`Budget::take`], which cannot be refused: they are there. What is still
//! to be decided (a new connection, more window for a peer) asks first. Whoever withholds windows must leave each stream a
//! small one: a stream whose window is zero, and whose buffers are empty, has nothing to wake it when the budget is free again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Part of the limit from which on it is tight, in quarters. Three: the last quarter is for bytes that are under way already.
const TIGHT_QUARTERS: usize = 3;

/// A shared count of bytes with a limit. Cheap to clone; all clones are one budget.
#[derive(Debug, Clone)]
pub struct Budget {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    used: AtomicUsize,
    limit: usize,
    strained: AtomicBool,
}

impl Default for Budget {
    fn default() -> Self {
        Self::unlimited()
    }
}

impl Budget {
    /// At most this many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { state: Arc::new(State { used: AtomicUsize::new(0), limit, strained: AtomicBool::new(false) }) }
    }

    /// Counts, and never refuses unless it is [strained](Self::set_strained).
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Takes bytes for something new. Takes nothing and says `false` if that would go past the limit, or while the process
    /// is strained: then shed it, with a reason.
    #[must_use = "nothing was taken when it says false"]
    pub fn try_take(&self, bytes: usize) -> bool {
        if self.state.strained.load(Ordering::Relaxed) {
            return false;
        }
        let fits = |used: usize| used.checked_add(bytes).filter(|next| *next <= self.state.limit);
        self.state.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Whether [`Budget::try_take`] would take them now.
    #[must_use]
    pub fn fits(&self, bytes: usize) -> bool {
        let strained = self.state.strained.load(Ordering::Relaxed);
        !strained && self.used().checked_add(bytes).is_some_and(|next| next <= self.state.limit)
    }

    /// Counts bytes that are here already.
    pub fn take(&self, bytes: usize) {
        self.state.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken, by either way.
    pub fn release(&self, bytes: usize) {
        let before = self.state.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "{bytes} bytes released, {before} taken");
    }

    /// Whether peers should be slowed down: little is left, or the process is strained.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.used() > self.state.limit / 4 * TIGHT_QUARTERS || self.state.strained.load(Ordering::Relaxed)
    }

    /// The process as a whole comes near to its ceiling, whatever the count says (what is counted is not all there is).
    pub fn set_strained(&self, strained: bool) {
        self.state.strained.store(strained, Ordering::Relaxed);
    }

    /// Bytes taken now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state.used.load(Ordering::Relaxed)
    }

    /// Bytes at most; `None` when there is no limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        Some(self.state.limit).filter(|limit| *limit != usize::MAX)
    }

    /// A holding of nothing, which gives back by itself what it holds when it is dropped.
    #[must_use]
    pub fn holding(&self) -> Holding {
        Holding { budget: self.clone(), bytes: 0 }
    }
}

/// What one owner (a stream, a connection) holds of a budget; its drop gives everything back.
#[derive(Debug)]
pub struct Holding {
    budget: Budget,
    bytes: usize,
}

impl Holding {
    /// Takes more for something new; says `false`, and takes nothing, where [`Budget::try_take`] does.
    #[must_use = "nothing was taken when it says false"]
    pub fn try_add(&mut self, bytes: usize) -> bool {
        let taken = self.budget.try_take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// Holds exactly this many from now on: bytes that came, or that went.
    pub fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.take(bytes - self.bytes);
        } else {
            self.budget.release(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Bytes held now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The budget that it is of.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Budget;

    #[test]
    fn new_work_is_refused_before_what_is_here_is_lost() {
        let budget = Budget::new(100);
        assert!(budget.try_take(75));
        assert!(!budget.is_tight());
        assert!(budget.try_take(1));
        assert!(budget.is_tight());
        assert!(!budget.try_take(25) && !budget.fits(25) && budget.fits(24), "76 + 25 > 100");
        assert_eq!(budget.used(), 76, "a refusal takes nothing");
        budget.take(50);
        assert_eq!((budget.used(), budget.is_tight()), (126, true), "bytes that came are counted past the limit");
        budget.release(126);
        assert_eq!((budget.used(), budget.is_tight()), (0, false));
    }

    #[test]
    fn a_strained_process_takes_nothing_new() {
        let budget = Budget::unlimited();
        assert_eq!(budget.limit(), None);
        assert!(budget.try_take(usize::MAX / 2) && !budget.is_tight());
        budget.set_strained(true);
        assert!(!budget.try_take(1) && budget.is_tight());
        budget.take(1);
        budget.set_strained(false);
        assert!(budget.try_take(1));
    }

    proptest! {
        /// Whatever owners do, the count is the sum of what they hold, and nothing when they are gone.
        #[test]
        fn the_count_is_what_is_held(steps in prop::collection::vec((0..4usize, 0..50usize, any::<bool>()), 0..60)) {
            let budget = Budget::new(100);
            let mut holdings: Vec<_> = (0..4).map(|_| budget.holding()).collect();
            for (who, bytes, new) in steps {
                if new {
                    let before = (budget.used(), holdings[who].bytes());
                    let taken = holdings[who].try_add(bytes);
                    prop_assert_eq!(taken, before.0 + bytes <= 100);
                } else {
                    holdings[who].set(bytes);
                }
                prop_assert_eq!(budget.used(), holdings.iter().map(super::Holding::bytes).sum::<usize>());
            }
            drop(holdings);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
