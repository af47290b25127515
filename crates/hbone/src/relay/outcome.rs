//! What a relay counts while it runs and says when it ends.

use std::sync::atomic::{AtomicU64, Ordering};

/// One of the two ends of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The application's socket; between two sockets the first.
    App,
    /// The tunnel; between two sockets the second.
    Peer,
}

/// How a relay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEnd<C> {
    /// Both directions ended by FIN or END_STREAM.
    Orderly,
    /// That side was reset, or its connection was lost; the other has been reset too.
    ResetBy(Side),
    /// That side did not answer any more (TCP timeout, no PONG); the other has been reset.
    Timeout(Side),
    /// The cancellation came; both sides have been reset. With what it said.
    Cancelled(C),
}

/// The result of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOutcome<C> {
    /// Bytes from the application to the peer.
    pub sent: u64,
    /// Bytes from the peer to the application.
    pub received: u64,
    /// How it ended.
    pub end: RelayEnd<C>,
}

/// Bytes so far, readable from anywhere while the relay runs. Counted when written on.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Traffic {
    /// Bytes from the application to the peer.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from the peer to the application.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
