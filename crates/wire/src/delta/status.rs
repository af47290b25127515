//! What a stream says of itself, for admin pages, metrics and the readiness gate.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::subscriber::Subscriber;
use crate::convert::ResourceType;

/// The state of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// Whether a stream is open, and the server has answered on it.
    pub connected: bool,
    /// Since when `connected` is what it is.
    pub since: SystemTime,
    /// How often a stream was opened.
    pub streams: u64,
    /// Why the last stream, or attempt, ended.
    pub last_error: Option<String>,
    /// Each type that is subscribed to.
    pub types: BTreeMap<ResourceType, TypeStatus>,
}

/// The state of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TypeStatus {
    /// A whole answer was received once: the gate for readiness.
    pub complete: bool,
    /// Resources held.
    pub held: usize,
    /// Resources that the first answer of the stream takes away, and that stay until it is confirmed.
    pub doubted: usize,
    /// Responses received.
    pub responses: u64,
    /// Responses that were refused in part.
    pub nacks: u64,
    /// Nonce of the last response; empty before the first of a stream.
    pub nonce: String,
    /// The server's name for its version.
    pub server_version: String,
    /// What cannot be read now.
    pub rejected: Vec<Rejected>,
}

/// A resource that is offered and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl StreamStatus {
    pub(super) fn new(kinds: impl Iterator<Item = ResourceType>) -> Self {
        Self {
            connected: false,
            since: SystemTime::now(),
            streams: 0,
            last_error: None,
            types: kinds.map(|kind| (kind, TypeStatus::default())).collect(),
        }
    }

    /// Whether every type has been answered wholly once; no pod may be captured before.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.types.values().all(|one| one.complete)
    }

    pub(super) fn set_connected(&mut self, connected: bool) {
        if self.connected != connected {
            self.connected = connected;
            self.since = SystemTime::now();
        }
    }

    pub(super) fn note(&mut self, subscriber: &Subscriber) {
        let one = self.types.entry(subscriber.kind()).or_default();
        one.complete = subscriber.is_complete();
        one.held = subscriber.held();
        subscriber.nonce().clone_into(&mut one.nonce);
        subscriber.server_version().clone_into(&mut one.server_version);
        let rejected = subscriber.rejected().iter();
        one.rejected = rejected.map(|(name, reason)| Rejected { name: name.clone(), reason: reason.clone() }).collect();
    }
}
