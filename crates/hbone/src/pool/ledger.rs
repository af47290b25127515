//! Who has room, who waits, who dials: the pool's book, as a value without I/O or clock.
//!
//! Rules, per key:
//! - a caller gets the fullest connection that has room, so that the others empty and can be released;
//! - without room it waits, and one dial runs for all who wait; a failed dial fails all of them;
//! - a dialled connection serves as many as fit, in order of asking; if some are left, the next dial starts;
//! - a retired connection (GOAWAY, lost, drained) gets no new caller, whatever it still carries;
//! - a connection that carried nothing for `idle_release` is released.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Names one connection of a ledger; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// Names one caller that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// What a caller shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Open a tunnel on this connection; a place is taken until [`Ledger::give_back`].
    Use(ConnectionId),
    /// Wait; and if `dial`, somebody must start a dial now.
    Wait {
        /// No dial for the key is under way yet.
        dial: bool,
    },
}

/// What a finished dial changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialled {
    /// The new connection.
    pub connection: ConnectionId,
    /// These have a place on it now.
    pub served: Vec<WaiterId>,
    /// More wait than fit: start another dial.
    pub dial: bool,
}

/// How many connections and tunnels a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCount {
    /// Connections that take new tunnels.
    pub connections: usize,
    /// Tunnels on them.
    pub tunnels: usize,
    /// Callers that wait for a dial.
    pub waiting: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Ledger<K> {
    entries: HashMap<K, Entry>,
    owners: HashMap<ConnectionId, K>,
    next_connection: u64,
    idle_release: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    places: Vec<Places>,
    dialling: bool,
    waiting: VecDeque<WaiterId>,
}

#[derive(Debug)]
struct Places {
    id: ConnectionId,
    used: usize,
    limit: usize,
    /// When the last tunnel left; `None` while there is one.
    idle_since: Option<Instant>,
}

impl<K: Eq + Hash + Clone> Ledger<K> {
    /// An empty ledger.
    #[must_use]
    pub fn new(idle_release: Duration) -> Self {
        Self { entries: HashMap::new(), owners: HashMap::new(), next_connection: 0, idle_release }
    }

    /// A caller wants one tunnel.
    pub fn ask(&mut self, key: &K, waiter: WaiterId) -> Answer {
        let entry = self.entries.entry(key.clone()).or_default();
        let roomy = entry.places.iter_mut().filter(|places| places.used < places.limit);
        if let Some(places) = roomy.max_by_key(|places| places.used) {
            places.used += 1;
            places.idle_since = None;
            return Answer::Use(places.id);
        }
        entry.waiting.push_back(waiter);
        Answer::Wait { dial: !std::mem::replace(&mut entry.dialling, true) }
    }

    /// The dial of a key succeeded; the connection takes `limit` tunnels (at least one).
    pub fn dialled(&mut self, key: &K, limit: usize, now: Instant) -> Dialled {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let limit = limit.max(1);
        let entry = self.entries.entry(key.clone()).or_default();
        let used = entry.waiting.len().min(limit);
        let served = entry.waiting.drain(..used).collect();
        entry.places.push(Places { id, used, limit, idle_since: (used == 0).then_some(now) });
        entry.dialling = !entry.waiting.is_empty();
        let dial = entry.dialling;
        self.owners.insert(id, key.clone());
        Dialled { connection: id, served, dial }
    }

    /// The dial of a key failed: these fail with it.
    pub fn dial_failed(&mut self, key: &K) -> Vec<WaiterId> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        entry.dialling = false;
        let failed = entry.waiting.drain(..).collect();
        self.tidy(key);
        failed
    }

    /// A caller stopped waiting. Its dial goes on and serves others.
    pub fn forget(&mut self, key: &K, waiter: WaiterId) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.waiting.retain(|other| *other != waiter);
        }
    }

    /// A tunnel ended. Nothing happens when its connection has been retired.
    pub fn give_back(&mut self, id: ConnectionId, now: Instant) {
        if let Some(places) = self.places_mut(id) {
            places.used = places.used.saturating_sub(1);
            if places.used == 0 {
                places.idle_since = Some(now);
            }
        }
    }

    /// The peer announced how many tunnels the connection may carry (at least one). Says whether those it carries now fit.
    pub fn set_limit(&mut self, id: ConnectionId, limit: usize) -> bool {
        self.places_mut(id).is_some_and(|places| {
            places.limit = limit.max(1);
            places.used <= places.limit
        })
    }

    /// The connection gets no new tunnel any more. Says whether it was known.
    pub fn retire(&mut self, id: ConnectionId) -> bool {
        let Some(key) = self.owners.remove(&id) else { return false };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.places.retain(|places| places.id != id);
        }
        self.tidy(&key);
        true
    }

    /// Retires, and returns, the connections of all keys that `which` picks.
    pub fn retire_where(&mut self, mut which: impl FnMut(&K) -> bool) -> Vec<ConnectionId> {
        let picked: Vec<_> = self.owners.iter().filter(|(_, key)| which(key)).map(|(id, _)| *id).collect();
        for id in &picked {
            self.retire(*id);
        }
        picked
    }

    /// Fails all who wait; dials under way find nobody.
    pub fn abandon(&mut self) -> Vec<WaiterId> {
        self.entries.values_mut().flat_map(|entry| entry.waiting.drain(..)).collect()
    }

    /// Retires, and returns, the connections that have been idle for too long.
    pub fn expire(&mut self, now: Instant) -> Vec<ConnectionId> {
        let idle_release = self.idle_release;
        let is_over = |places: &Places| {
            places.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= idle_release)
        };
        let places = self.entries.values().flat_map(|entry| &entry.places);
        let expired: Vec<_> = places.filter(|places| is_over(places)).map(|places| places.id).collect();
        for id in &expired {
            self.retire(*id);
        }
        expired
    }

    /// What each key has now.
    pub fn counts(&self) -> impl Iterator<Item = (&K, KeyCount)> {
        self.entries.iter().map(|(key, entry)| {
            let tunnels = entry.places.iter().map(|places| places.used).sum();
            (key, KeyCount { connections: entry.places.len(), tunnels, waiting: entry.waiting.len() })
        })
    }

    fn places_mut(&mut self, id: ConnectionId) -> Option<&mut Places> {
        let key = self.owners.get(&id)?;
        self.entries.get_mut(key)?.places.iter_mut().find(|places| places.id == id)
    }

    /// Forgets a key that has nothing left.
    fn tidy(&mut self, key: &K) {
        let is_empty = |entry: &Entry| entry.places.is_empty() && !entry.dialling && entry.waiting.is_empty();
        if self.entries.get(key).is_some_and(is_empty) {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
