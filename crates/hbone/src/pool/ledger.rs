//! Who has room, who waits, who dials: the pool's book, as a value without I/O or clock.
//!
//! Rules, per key:
//! - a caller gets the fullest connection that has room, so that the others empty and can be released;
//! - without room it waits, and as many dials run as all who wait need, up to [`MOST_DIALS`];
//! - a dialled connection, or a place that is given back, serves who waits, in order of asking;
//! - when the last dial under way fails, all who still wait fail with it;
//! - a retired connection (GOAWAY, lost, drained) gets no new caller, whatever it still carries;
//! - a connection that carried nothing for `idle_release` is released.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::settings::MAX_TUNNELS;

/// Dials that run for one key at a time. 8: a burst of 1000 callers needs ten connections, and a dial is mostly a handshake, of which
/// one thread does one at a time; more would only let them all end late.
pub const MOST_DIALS: usize = 8;

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
    /// Wait.
    Wait {
        /// The dials under way are too few for all who wait: start so many more.
        dials: usize,
    },
}

/// What a finished dial changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialled {
    /// The new connection.
    pub connection: ConnectionId,
    /// These have a place on it now.
    pub served: Vec<WaiterId>,
    /// More wait than the dials under way will serve: start so many more.
    pub dials: usize,
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

#[derive(Debug)]
struct Entry {
    places: Vec<Places>,
    /// Dials under way.
    dialling: usize,
    /// Tunnels that the next connection will probably take: as many as the last one.
    expected: usize,
    waiting: VecDeque<WaiterId>,
}

impl Default for Entry {
    fn default() -> Self {
        Self { places: Vec::new(), dialling: 0, expected: MAX_TUNNELS, waiting: VecDeque::new() }
    }
}

impl Entry {
    /// Enters the dials that are missing for all who wait, and says how many.
    fn start_dials(&mut self) -> usize {
        let needed = self.waiting.len().div_ceil(self.expected).min(MOST_DIALS);
        let missing = needed.saturating_sub(self.dialling);
        self.dialling += missing;
        missing
    }
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
        Answer::Wait { dials: entry.start_dials() }
    }

    /// A connection of the key is to be replaced before anybody waits for it. Says whether to dial: not if that is under way.
    pub fn replace(&mut self, key: &K) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        let first = entry.dialling == 0;
        entry.dialling = entry.dialling.max(1);
        first
    }

    /// A dial of a key succeeded; the connection takes `limit` tunnels (at least one).
    pub fn dialled(&mut self, key: &K, limit: usize, now: Instant) -> Dialled {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let limit = limit.max(1);
        let entry = self.entries.entry(key.clone()).or_default();
        let used = entry.waiting.len().min(limit);
        let served = entry.waiting.drain(..used).collect();
        entry.places.push(Places { id, used, limit, idle_since: (used == 0).then_some(now) });
        entry.dialling = entry.dialling.saturating_sub(1);
        entry.expected = limit;
        let dials = entry.start_dials();
        self.owners.insert(id, key.clone());
        Dialled { connection: id, served, dials }
    }

    /// A dial of a key failed: these fail with it, unless another one is still under way.
    pub fn dial_failed(&mut self, key: &K) -> Vec<WaiterId> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        entry.dialling = entry.dialling.saturating_sub(1);
        if entry.dialling > 0 {
            return Vec::new();
        }
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

    /// A tunnel ended; its place is this caller's now, if one waits. Nothing happens when its connection has been retired.
    pub fn give_back(&mut self, id: ConnectionId, now: Instant) -> Option<WaiterId> {
        let entry = self.entries.get_mut(self.owners.get(&id)?)?;
        let places = entry.places.iter_mut().find(|places| places.id == id)?;
        if places.used <= places.limit
            && let Some(waiter) = entry.waiting.pop_front()
        {
            return Some(waiter);
        }
        places.used = places.used.saturating_sub(1);
        if places.used == 0 {
            places.idle_since = Some(now);
        }
        None
    }

    /// Whether callers wait for a place on a connection to where this one leads.
    #[must_use]
    pub fn is_waited_for(&self, id: ConnectionId) -> bool {
        self.owners.get(&id).and_then(|key| self.entries.get(key)).is_some_and(|entry| !entry.waiting.is_empty())
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
        let is_empty = |entry: &Entry| entry.places.is_empty() && entry.dialling == 0 && entry.waiting.is_empty();
        if self.entries.get(key).is_some_and(is_empty) {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
