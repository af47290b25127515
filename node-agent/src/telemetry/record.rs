//! One connection as telemetry sees it, filled in while it is decided and set up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_model::authz::ShadowDenial;
use weft_model::{PolicyKey, Reason, Service, SpiffeId, Workload};

use super::security::Security;

/// From whose point of view: the client's node or the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The client's side (`reporter="source"`).
    Outbound,
    /// The server's side (`reporter="destination"`).
    Inbound,
}

impl Direction {
    /// `outbound` or `inbound`: the word in the access log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    /// Istio's `reporter` label.
    #[must_use]
    pub const fn reporter(self) -> &'static str {
        match self {
            Self::Outbound => "source",
            Self::Inbound => "destination",
        }
    }
}

/// Everything that log and metrics say of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionRecord {
    /// Point of view.
    pub direction: Direction,
    /// When it was accepted.
    pub opened: Instant,
    /// The client.
    pub source: SocketAddr,
    /// Where the client wanted to go (outbound) or where it was delivered (inbound).
    pub destination: SocketAddr,
    /// The authority inside the tunnel, if there is a tunnel.
    pub hbone_target: Option<String>,
    /// The client's workload, if known.
    pub source_workload: Option<Arc<Workload>>,
    /// The client's proved identity.
    pub source_identity: Option<SpiffeId>,
    /// The server's workload, if known.
    pub destination_workload: Option<Arc<Workload>>,
    /// The server's identity: proved by its certificate (outbound), or our own (inbound).
    pub destination_identity: Option<SpiffeId>,
    /// The service that was asked for.
    pub service: Option<Arc<Service>>,
    /// How it travelled.
    pub security: Security,
    /// Bytes from client to server.
    pub sent: u64,
    /// Bytes from server to client.
    pub received: u64,
    /// How it ended: `None` is well; a reason otherwise.
    pub reason: Option<Reason>,
    /// The policy that permitted or denied.
    pub policy: Option<PolicyKey>,
    /// What a policy in shadow mode would have done.
    pub shadow: Option<ShadowDenial>,
    /// The error's own words.
    pub detail: Option<String>,
}

impl ConnectionRecord {
    /// A connection of which nothing but the addresses is known yet.
    #[must_use]
    pub fn new(direction: Direction, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            direction,
            opened: Instant::now(),
            source,
            destination,
            hbone_target: None,
            source_workload: None,
            source_identity: None,
            destination_workload: None,
            destination_identity: None,
            service: None,
            security: Security::Plaintext,
            sent: 0,
            received: 0,
            reason: None,
            policy: None,
            shadow: None,
            detail: None,
        }
    }
}
