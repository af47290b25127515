//! Packet filter rules as values, and their text in the form that `iptables-save` prints (iptables-nft and -legacy
//! print the same), so that what is wanted and what is found compare as lines.

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use super::mark::Mark;

/// A table of the packet filter that we have rules in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableName {
    /// Marks, TPROXY and the first guard.
    Mangle,
    /// The second guard; the only table that has REJECT.
    Filter,
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mangle => "mangle",
            Self::Filter => "filter",
        })
    }
}

/// Everything of ours in one table: replaced in one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which table.
    pub name: TableName,
    /// Our chains, each with its rules in order.
    pub chains: Vec<Chain>,
    /// Rules in the kernel's own chains that lead to ours; those of one chain in this order, before anybody else's.
    pub jumps: Vec<Jump>,
}

/// A chain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name; starts with [`CHAIN_PREFIX`].
    pub name: &'static str,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// A rule in a chain of the kernel that leads to one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The kernel's chain.
    pub from: &'static str,
    /// Which packets.
    pub matches: Vec<Match>,
    /// Our chain.
    pub to: &'static str,
}

/// Begins the name of every chain of ours: whatever has it is ours to change.
pub const CHAIN_PREFIX: &str = "WEFT_";

/// Which packets, and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
}

/// A property of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Came in by `lo`.
    FromLoopback,
    /// Leaves by something else than `lo`.
    NotToLoopback,
    /// Is TCP; the conditions on its header in the order in which the kernel's module prints them.
    Tcp(Vec<TcpMatch>),
    /// Carries the packet mark.
    Mark(Mark),
    /// Does not carry it.
    NotMark(Mark),
    /// Belongs to a connection with this mark (this wakes conntrack in the pod).
    Connmark(Mark),
    /// Belongs to a connection without it.
    NotConnmark(Mark),
    /// Belongs to no connection that conntrack knows or would begin with this packet.
    OfNoConnection,
    /// A local socket would take it, listeners on the wildcard address included.
    Socket,
    /// A local transparent socket would take it.
    TransparentSocket,
    /// No socket sent it: the kernel's own refusals.
    NoOwner,
}

/// A property of a TCP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpMatch {
    /// Destination port.
    ToPort(u16),
    /// Any destination port but these.
    NotToPorts(RangeInclusive<u16>),
    /// Opens a connection.
    Syn,
    /// Everything else.
    NotSyn,
    /// Refuses a connection attempt (RST and ACK).
    Refusal,
    /// The sender has no more to say.
    Fin,
    /// Breaks the connection off.
    Rst,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Give it to the socket of its connection, or else to this listener, and mark it.
    Tproxy {
        /// Listener's address.
        address: IpAddr,
        /// Listener's port.
        port: u16,
        /// Mark of a packet that a socket took.
        mark: Mark,
    },
    /// Set the packet's mark.
    SetMark(Mark),
    /// Set the connection's mark.
    SetConnmark(Mark),
    /// Go on behind the jump.
    Return,
    /// Throw it away.
    Drop,
    /// Refuse the connection.
    Reset,
}

impl Chain {
    /// Its rules as `iptables-save` prints them.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.rules.iter().map(|rule| format!("-A {}{} {}", self.name, Matches(&rule.matches), rule.target))
    }
}

impl Jump {
    /// The rule behind `-A `, `-I ` or `-D `, as `iptables-save` prints it.
    #[must_use]
    pub fn specification(&self) -> String {
        format!("{}{} -j {}", self.from, Matches(&self.matches), self.to)
    }
}

struct Matches<'a>(&'a [Match]);

impl fmt::Display for Matches<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|one| write!(formatter, " {one}"))
    }
}

impl fmt::Display for Match {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromLoopback => formatter.write_str("-i lo"),
            Self::NotToLoopback => formatter.write_str("! -o lo"),
            Self::Tcp(conditions) if conditions.is_empty() => formatter.write_str("-p tcp"),
            Self::Tcp(conditions) => {
                formatter.write_str("-p tcp -m tcp")?;
                conditions.iter().try_for_each(|condition| write!(formatter, " {condition}"))
            }
            Self::Mark(mark) => write!(formatter, "-m mark --mark {mark}"),
            Self::NotMark(mark) => write!(formatter, "-m mark ! --mark {mark}"),
            Self::Connmark(mark) => write!(formatter, "-m connmark --mark {mark}"),
            Self::NotConnmark(mark) => write!(formatter, "-m connmark ! --mark {mark}"),
            Self::OfNoConnection => formatter.write_str("-m conntrack --ctstate INVALID"),
            Self::Socket => formatter.write_str("-m socket --nowildcard"),
            Self::TransparentSocket => formatter.write_str("-m socket --transparent --nowildcard"),
            Self::NoOwner => formatter.write_str("-m owner ! --socket-exists"),
        }
    }
}

impl fmt::Display for TcpMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToPort(port) => write!(formatter, "--dport {port}"),
            Self::NotToPorts(ports) => write!(formatter, "! --dport {}:{}", ports.start(), ports.end()),
            Self::Syn => formatter.write_str("--tcp-flags FIN,SYN,RST,ACK SYN"),
            Self::NotSyn => formatter.write_str("! --tcp-flags FIN,SYN,RST,ACK SYN"),
            Self::Refusal => formatter.write_str("--tcp-flags RST,ACK RST,ACK"),
            Self::Fin => formatter.write_str("--tcp-flags FIN FIN"),
            Self::Rst => formatter.write_str("--tcp-flags RST RST"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tproxy { address, port, mark } => {
                write!(formatter, "-j TPROXY --on-port {port} --on-ip {address} --tproxy-mark {mark}")
            }
            Self::SetMark(mark) => write!(formatter, "-j MARK --set-xmark {mark}"),
            Self::SetConnmark(mark) => write!(formatter, "-j CONNMARK --set-xmark {mark}"),
            Self::Return => formatter.write_str("-j RETURN"),
            Self::Drop => formatter.write_str("-j DROP"),
            Self::Reset => formatter.write_str("-j REJECT --reject-with tcp-reset"),
        }
    }
}
