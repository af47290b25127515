//! What one pod holds of this agent now, over all workers: live connections, and those that are still being set up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a connection comes to a worker; each is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The pod's own calls.
    Outbound,
    /// Calls to the pod: captured plaintext, and each stream of a tunnel.
    Inbound,
    /// Connections to the pod that carry streams (15008).
    Tunnel,
}

/// The counts of one pod.
#[derive(Debug, Default)]
pub struct PodLoad {
    outbound: Counts,
    inbound: Counts,
    tunnels: Counts,
    /// Set-ups in hand by way and address.
    peers: Mutex<HashMap<(Way, IpAddr), u64>>,
}

#[derive(Debug, Default)]
struct Counts {
    live: AtomicU64,
    unfinished: AtomicU64,
}

impl PodLoad {
    fn of(&self, way: Way) -> &Counts {
        match way {
            Way::Outbound => &self.outbound,
            Way::Inbound => &self.inbound,
            Way::Tunnel => &self.tunnels,
        }
    }

    /// Live connections, those that are being set up among them.
    #[must_use]
    pub fn live(&self, way: Way) -> u64 {
        self.of(way).live.load(Ordering::Relaxed)
    }

    /// Connections that are being set up.
    #[must_use]
    pub fn unfinished(&self, way: Way) -> u64 {
        self.of(way).unfinished.load(Ordering::Relaxed)
    }

    /// Connections from the address that are being set up.
    #[must_use]
    pub fn of_peer(&self, way: Way, peer: IpAddr) -> u64 {
        self.peers().get(&(way, peer.to_canonical())).copied().unwrap_or_default()
    }

    pub(super) fn peer_begins(&self, way: Way, peer: IpAddr) {
        *self.peers().entry((way, peer)).or_default() += 1;
    }

    pub(super) fn peer_ends(&self, way: Way, peer: IpAddr) {
        let mut peers = self.peers();
        if let Some(count) = peers.get_mut(&(way, peer)) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&(way, peer));
            }
        }
    }

    /// Held for some nanoseconds, once when a connection comes in and once when it stands.
    fn peers(&self) -> MutexGuard<'_, HashMap<(Way, IpAddr), u64>> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are relayed for the pod, both directions, and tunnels that are being set up: whoever makes one has a stream for it.
    #[must_use]
    pub fn relaying(&self) -> u64 {
        self.live(Way::Outbound) + self.live(Way::Inbound) + self.unfinished(Way::Tunnel)
    }

    /// Everything that holds a descriptor or memory.
    #[must_use]
    pub fn total(&self) -> u64 {
        [Way::Outbound, Way::Inbound, Way::Tunnel].map(|way| self.live(way)).iter().sum()
    }

    /// Counts one more live connection for as long as the guard lives.
    #[must_use]
    pub fn enter(self: &Arc<Self>, way: Way) -> Counted {
        Counted::new(self, way, true)
    }

    /// Counts one more connection that is being set up, for as long as the guard lives.
    #[must_use]
    pub fn begin(self: &Arc<Self>, way: Way) -> Counted {
        Counted::new(self, way, false)
    }
}

/// Counts one connection. Each live one has one of these: it is kept at two words.
#[derive(Debug)]
pub struct Counted {
    load: Arc<PodLoad>,
    way: Way,
    live: bool,
}

impl Counted {
    fn new(load: &Arc<PodLoad>, way: Way, live: bool) -> Self {
        let counted = Self { load: load.clone(), way, live };
        counted.count().fetch_add(1, Ordering::Relaxed);
        counted
    }

    fn count(&self) -> &AtomicU64 {
        let counts = self.load.of(self.way);
        if self.live { &counts.live } else { &counts.unfinished }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}
