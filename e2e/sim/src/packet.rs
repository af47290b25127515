//! One opening segment (SYN) of an application on its way through a pod's packet filters, and what rules ask of it.
//!
//! Only these are followed: what happens to a new connection is what the promises are about.

use weft_node_agent::capture::mark::Mark;
use weft_node_agent::capture::rules::{Match, TcpMatch};

/// It.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Its mark.
    pub mark: u32,
    /// The mark of its connection.
    pub connection: u32,
    /// It came in by `lo`.
    pub from_loopback: bool,
    /// It leaves by `lo`.
    pub to_loopback: bool,
    /// Where it goes.
    pub port: u16,
    /// A local socket would take it.
    pub socket: bool,
}

/// What a filter says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// A listener of the agent has it.
    Captured,
    /// It is thrown away.
    Drop,
    /// It is refused with a RST.
    Reset,
}

impl Packet {
    /// A new call of the pod's application to this port of another pod.
    #[must_use]
    pub fn leaving(port: u16) -> Self {
        Self { mark: 0, connection: 0, from_loopback: false, to_loopback: false, port, socket: false }
    }

    /// A new plaintext call to an application of the pod that listens.
    #[must_use]
    pub fn arriving(port: u16) -> Self {
        Self { socket: true, ..Self::leaving(port) }
    }

    /// Whether a condition holds: it has an owner, conntrack knows it, it is no RST and no FIN.
    #[must_use]
    pub fn fits(&self, condition: &Match) -> bool {
        match condition {
            Match::FromLoopback => self.from_loopback,
            Match::NotToLoopback => !self.to_loopback,
            Match::Tcp(conditions) => conditions.iter().all(|one| match one {
                TcpMatch::ToPort(port) => *port == self.port,
                TcpMatch::NotToPorts(ports) => !ports.contains(&self.port),
                TcpMatch::Syn => true,
                TcpMatch::NotSyn | TcpMatch::Refusal | TcpMatch::Fin | TcpMatch::Rst => false,
            }),
            Match::Mark(mark) => holds(mark, self.mark),
            Match::NotMark(mark) => !holds(mark, self.mark),
            Match::Connmark(mark) => holds(mark, self.connection),
            Match::NotConnmark(mark) => !holds(mark, self.connection),
            Match::Socket => self.socket,
            Match::OfNoConnection | Match::TransparentSocket | Match::NoOwner => false,
        }
    }
}

/// Whether a value carries a mark.
#[must_use]
pub fn holds(mark: &Mark, value: u32) -> bool {
    value & mark.mask == mark.value
}

/// Puts a mark on.
pub fn set(value: &mut u32, mark: &Mark) {
    *value = (*value & !mark.mask) | mark.value;
}
