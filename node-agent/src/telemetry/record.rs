//! One connection as telemetry sees it, filled in while it is decided and set up.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_hbone::Authority;
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

/// A probe of the kubelet, which policies do not hold up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The kubelet has the other end open.
    Kubelet,
    /// It came from the node to a port of a probe, and ended without a byte before anybody could look whose it was: nothing was
    /// delivered, and nothing refused.
    Closed,
}

impl Probe {
    /// The word in the access log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Closed => "closed",
        }
    }
}

/// What is asked of the tunnel's far end. Becomes text only when its line is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HboneTarget {
    /// The authority inside the tunnel.
    pub authority: Authority,
    /// Where the tunnel itself goes; known to the client's side only.
    pub via: Option<SocketAddr>,
}

impl fmt::Display for HboneTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via {
            Some(via) => write!(f, "{} via {via}", self.authority),
            None => write!(f, "{}", self.authority),
        }
    }
}

/// Everything that log and metrics say of a connection. Every open connection holds one, so what is rarely there is boxed
/// and everything else is a shared pointer or a number.
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
    /// What is asked of the far end, if there is a tunnel.
    pub hbone_target: Option<HboneTarget>,
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
    /// It entered as a probe.
    pub probe: Option<Probe>,
    /// Bytes from client to server: when it is over, all of them; until then those that the counters have been told of.
    pub sent: u64,
    /// Bytes from server to client, likewise.
    pub received: u64,
    /// How it ended: `None` is well; a reason otherwise.
    pub reason: Option<Reason>,
    /// The policy that permitted or denied.
    pub policy: Option<Box<PolicyKey>>,
    /// What a policy in shadow mode would have done.
    pub shadow: Option<Box<ShadowDenial>>,
    /// The error's own words.
    pub detail: Option<Box<str>>,
}

impl ConnectionRecord {
    /// A connection of which nothing but the addresses is known yet.
    #[must_use]
    pub fn new(direction: Direction, source: SocketAddr, destination: SocketAddr) -> Self {
        Self::blank(direction, Instant::now(), source, destination)
    }

    /// Moves everything out; the addresses and the time stay as well.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let blank = Self::blank(self.direction, self.opened, self.source, self.destination);
        std::mem::replace(self, blank)
    }

    fn blank(direction: Direction, opened: Instant, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            direction,
            opened,
            source,
            destination,
            hbone_target: None,
            source_workload: None,
            source_identity: None,
            destination_workload: None,
            destination_identity: None,
            service: None,
            security: Security::Plaintext,
            probe: None,
            sent: 0,
            received: 0,
            reason: None,
            policy: None,
            shadow: None,
            detail: None,
        }
    }
}
