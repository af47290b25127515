//! Until when a connection between two agents takes new tunnels: no longer than the certificates that were shown when it was
//! made. Open tunnels go on; the next one is opened on a new connection, with the certificates of then, or not at all.
//!
//! By the time of day, looked at again and again: it may be set.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, SystemTime};

/// How often the time of day is looked at while a connection waits for its end.
const LOOK: Duration = Duration::from_secs(30);

/// From so many keys on those without a connection are looked for: below it costs more than it gives back.
const WORTH_A_LOOK: usize = 256;

/// When the connections that this worker made must not be used any more, by key.
#[derive(Debug)]
pub struct Lifetimes<K> {
    ends: RefCell<HashMap<K, SystemTime>>,
}

impl<K> Default for Lifetimes<K> {
    fn default() -> Self {
        Self { ends: RefCell::default() }
    }
}

impl<K: Eq + Hash + Clone> Lifetimes<K> {
    /// A connection was made whose certificates end then. Of several of one key the first end counts: another one is quickly
    /// made.
    pub fn made(&self, key: &K, ends: SystemTime) {
        let mut known = self.ends.borrow_mut();
        let end = known.entry(key.clone()).or_insert(ends);
        *end = ends.min(*end);
    }

    /// The keys whose connections end within `margin`; they are forgotten here.
    pub fn over(&self, now: SystemTime, margin: Duration) -> HashSet<K> {
        let mut over = HashSet::new();
        self.ends.borrow_mut().retain(|key, end| {
            let stays = *end > now + margin;
            if !stays {
                over.insert(key.clone());
            }
            stays
        });
        over
    }

    /// Whether the connections of one key have ended; it is forgotten then.
    pub fn is_over(&self, key: &K, now: SystemTime) -> bool {
        let mut ends = self.ends.borrow_mut();
        let over = ends.get(key).is_some_and(|end| now >= *end);
        if over {
            ends.remove(key);
        }
        over
    }

    /// Forgets the keys that have no connection any more, if there are many.
    pub fn tidy(&self, keys: impl FnOnce() -> HashSet<K>) {
        let mut known = self.ends.borrow_mut();
        if known.len() >= WORTH_A_LOOK {
            let keys = keys();
            known.retain(|key, _| keys.contains(key));
            known.shrink_to_fit();
        }
    }
}

/// Completes when the time of day has come.
pub async fn until(end: SystemTime) {
    while let Ok(left) = end.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_of_a_key_counts_and_once() {
        let (lifetimes, now) = (Lifetimes::default(), SystemTime::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for (key, end) in [("a", 100), ("a", 50), ("a", 200), ("b", 60)] {
            lifetimes.made(&key, after(end));
        }
        let margin = Duration::from_secs(10);
        assert!(lifetimes.over(after(39), margin).is_empty());
        assert_eq!(lifetimes.over(after(40), margin), HashSet::from(["a"]));
        assert!(lifetimes.over(after(40), margin).is_empty());
        assert!(!lifetimes.is_over(&"b", after(59)));
        assert_eq!(lifetimes.over(after(3600), margin), HashSet::from(["b"]), "a clock that jumped");
        lifetimes.made(&"b", after(60));
        assert!(lifetimes.is_over(&"b", after(60)) && !lifetimes.is_over(&"b", after(60)), "once");
    }

    #[test]
    fn what_has_no_connection_is_forgotten_when_there_is_much() {
        let (lifetimes, now) = (Lifetimes::default(), SystemTime::now());
        for key in 0..300 {
            lifetimes.made(&key, now + LOOK);
        }
        lifetimes.tidy(|| HashSet::from([7]));
        assert_eq!(lifetimes.over(now + LOOK, Duration::ZERO), HashSet::from([7]));
        lifetimes.made(&1, now);
        lifetimes.tidy(|| panic!("not for one"));
    }
}
