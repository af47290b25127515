//! The words of ejection: what can be ejected, why, and the numbers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::workload::Uid;

/// What connections fail at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An application: a workload at one of its ports.
    Endpoint(Uid, u16),
    /// The peer agent behind an address (port 15008 of a pod, or a waypoint).
    Hop(SocketAddr),
    /// A node: nothing on it answers.
    Node(Arc<str>),
}

impl Subject {
    /// The kind as a word, for metrics and pages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Endpoint(..) => "endpoint",
            Self::Hop(_) => "tunnel",
            Self::Node(_) => "node",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Of a pod's uid, what people call it: the first part is the cluster.
            Self::Endpoint(uid, port) => {
                write!(f, "{}:{port}", uid.0.split_once("//Pod/").map_or(&*uid.0, |(_, name)| name))
            }
            Self::Hop(address) => write!(f, "{address}"),
            Self::Node(name) => f.write_str(name),
        }
    }
}

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Nobody listens.
    Refused,
    /// No answer.
    Silent,
    /// Anything else before the connection stood: no route, a failed handshake, another pod there, a peer that sheds.
    Failed,
    /// The server reset it before it said a word.
    Reset,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::Refused, Self::Silent, Self::Failed, Self::Reset];

    /// The fault as a word, for metrics, pages and the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Silent => "no answer",
            Self::Failed => "failed",
            Self::Reset => "reset",
        }
    }
}

/// One failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of what.
    pub subject: Subject,
    /// How.
    pub fault: Fault,
    /// When the connection that failed began: what began before an ejection says nothing new.
    pub begun: Instant,
    /// For a node: the address that was silent. Two different ones are needed, for one may have a firewall.
    pub silent: Option<SocketAddr>,
    /// Whether it may be ejected now: not when too large a share of its service is already.
    pub may_eject: bool,
}

/// The numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EjectionSettings {
    /// Connections in a row that an application fails before it is ejected. 3: one may be a restart, two an accident. The way
    /// to a peer agent is ejected at the first: one dial speaks for all connections that wait for it.
    pub failures: u32,
    /// The same for connections that stood and were reset before the server said a word: 5, because a client that talks
    /// nonsense is answered like that, too.
    pub resets: u32,
    /// How long the first ejection lasts, and by how much each further one without a return lasts longer: twice. 5 s, since
    /// coming back too early costs no more than one connection that is tried elsewhere.
    pub first: Duration,
    /// The longest ejection. 60 s.
    pub longest: Duration,
    /// How long a probe may take before the next connection is one. 15 s: longer than a dial with its handshake (10 s).
    pub probe: Duration,
    /// The most of a service's endpoints that failures of applications may eject, in percent. 50: such a failure may come
    /// from load, which the others would have to bear. Of two, one; the last one never. Unreachable agents and nodes do not
    /// count: they carry nothing anyway.
    pub share: u32,
}

impl Default for EjectionSettings {
    fn default() -> Self {
        Self {
            failures: 3,
            resets: 5,
            first: Duration::from_secs(5),
            longest: Duration::from_secs(60),
            probe: Duration::from_secs(15),
            share: 50,
        }
    }
}

impl EjectionSettings {
    /// Whether one more of `all` endpoints of a service may be ejected when `out` are.
    #[must_use]
    pub fn may_eject(&self, out: usize, all: usize) -> bool {
        (out + 1) * 100 <= all * self.share as usize && out + 1 < all
    }
}

/// Whether connections may go over a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    In,
    /// One may, to see whether it is well again: say so with [`super::Ejections::took`].
    Due,
    /// Only when there is nothing else.
    Out,
}

/// What an event changed, for the log and the counters.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Whom it concerns.
    pub subject: Subject,
    /// What happened.
    pub kind: ChangeKind,
}

/// See [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is left out from now on.
    Ejected {
        /// Why.
        fault: Fault,
        /// For how long.
        lasts: Duration,
    },
    /// It is used as before.
    Returned {
        /// How long it was left out.
        after: Duration,
    },
}
