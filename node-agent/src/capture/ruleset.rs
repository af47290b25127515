//! Which rules a captured pod has, in each phase, as values. `docs/capture.md` says what each is for.

use super::{
    mark::{self, CapturePorts, DIAL_PORTS, HBONE_PORT, listen_address},
    rules::{
        Chain, Jump,
        Match::{
            self, Connmark, FromLoopback, NoOwner, NotConnmark, NotMark, NotToLoopback, OfNoConnection, Socket,
            TransparentSocket,
        },
        Rule, Table, TableName, Target,
        TcpMatch::{Fin, NotSyn, NotToPorts, Refusal, Rst, Syn, ToPort},
    },
};
use crate::handover::Family;

/// The two ways of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Through the agent.
    Relayed,
    /// Past the mesh, in plaintext.
    Direct,
}

/// What happens to which connections. In a transition every SYN is marked with the way that its connection takes. The others
/// are older than the transitions that follow one another, and all of one kind: [`Way::Direct`] since the pod joined,
/// [`Way::Relayed`] once it was [`Phase::Steady`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is captured; no conntrack.
    Steady,
    /// The pod begins to join: its own new calls and HBONE are captured; what comes in plaintext goes direct, because its
    /// callers have not heard yet that they should tunnel, and a policy would take them for strangers.
    EnrolOut(Way),
    /// The pod is joining: new connections are captured.
    Enrol(Way),
    /// The pod begins to leave: new calls to it go direct, its own are still captured, because whom it calls may not have
    /// opened yet. The rules are those of [`Self::EnrolOut`].
    ReleaseIn(Way),
    /// The pod is leaving: new connections go direct.
    Release(Way),
}

/// Which way connections go in a transition.
#[derive(Clone, Copy, PartialEq)]
struct Transition {
    /// New calls of the pod.
    calls_out: Way,
    /// New plaintext calls to the pod.
    calls_in: Way,
    /// Connections that are older.
    older: Way,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Steady,
        Self::EnrolOut(Way::Direct),
        Self::Enrol(Way::Direct),
        Self::ReleaseIn(Way::Direct),
        Self::Release(Way::Direct),
        Self::EnrolOut(Way::Relayed),
        Self::Enrol(Way::Relayed),
        Self::ReleaseIn(Way::Relayed),
        Self::Release(Way::Relayed),
    ];

    /// The way of connections that no transition has marked: what a transition that follows must know.
    #[must_use]
    pub fn older(self) -> Way {
        self.transition().map_or(Way::Relayed, |transition| transition.older)
    }

    /// Whether both have the same rules.
    #[must_use]
    pub fn looks_like(self, other: Self) -> bool {
        self.transition() == other.transition()
    }

    fn transition(self) -> Option<Transition> {
        let (calls_out, calls_in, older) = match self {
            Self::Steady => return None,
            Self::EnrolOut(older) | Self::ReleaseIn(older) => (Way::Relayed, Way::Direct, older),
            Self::Enrol(older) => (Way::Relayed, Way::Relayed, older),
            Self::Release(older) => (Way::Direct, Way::Direct, older),
        };
        Some(Transition { calls_out, calls_in, older })
    }
}

/// The tables of a captured pod, in the order in which they must be installed.
#[must_use]
pub fn tables(family: Family, phase: Phase, ports: CapturePorts) -> [Table; 2] {
    [mangle(family, phase, ports), filter(phase)]
}

fn mangle(family: Family, phase: Phase, ports: CapturePorts) -> Table {
    let mut chains = vec![
        Chain { name: "WEFT_PRE", rules: prerouting(family, phase, ports) },
        Chain { name: "WEFT_OUT", rules: output(phase) },
        Chain { name: "WEFT_POST", rules: postrouting(phase) },
    ];
    let mut jumps = vec![
        Jump { from: "PREROUTING", matches: vec![tcp()], to: "WEFT_PRE" },
        Jump { from: "OUTPUT", matches: vec![NotToLoopback, tcp()], to: "WEFT_OUT" },
        Jump { from: "POSTROUTING", matches: vec![NotToLoopback, tcp()], to: "WEFT_POST" },
    ];
    if phase.transition().is_some_and(|transition| transition.older == Way::Direct) {
        // Also on lo, where the agent dials applications: their answers must not pass for those of older connections.
        let dials = Rule { matches: vec![syn(), Match::Mark(mark::OURS)], target: marked(Way::Relayed) };
        chains.push(Chain { name: "WEFT_SYN", rules: vec![dials] });
        jumps.insert(1, Jump { from: "OUTPUT", matches: vec![tcp()], to: "WEFT_SYN" });
    }
    Table { name: TableName::Mangle, chains, jumps }
}

fn prerouting(family: Family, phase: Phase, ports: CapturePorts) -> Vec<Rule> {
    let tproxy = |port| Target::Tproxy { address: listen_address(family), port, mark: mark::TAKEN };
    let mut rules = vec![
        rule([FromLoopback, tcp(), Match::Mark(mark::LOOP)], tproxy(ports.outbound)),
        // tcp_fwmark_accept or fwmark_reflect in a pod must not give the application's sockets our mark.
        rule([FromLoopback], Target::SetMark(mark::NONE)),
        rule([FromLoopback], Target::Return),
        rule([Match::Tcp(vec![ToPort(HBONE_PORT)])], Target::Return),
    ];
    rules.extend(phase.transition().into_iter().flat_map(|change| let_past(change.calls_in, change.older)));
    rules.extend([
        rule([Match::Tcp(vec![NotSyn])], tproxy(ports.inbound)),
        // A SYN to a port where nobody listens is refused, not captured: probes of a dead application must fail.
        rule([tcp(), Socket], tproxy(ports.inbound)),
    ]);
    rules
}

fn output(phase: Phase) -> Vec<Rule> {
    let mut rules = vec![rule([Match::Mark(mark::OURS)], Target::Return)];
    rules.extend(phase.transition().into_iter().flat_map(|change| let_past(change.calls_out, change.older)));
    rules.extend([
        // Not towards the dial ports: there the same packet is the kernel's answer to our own dial.
        rule([Match::Tcp(vec![NotToPorts(DIAL_PORTS), Refusal]), NoOwner], Target::Return),
        rule([], Target::SetMark(mark::LOOP)),
    ]);
    rules
}

/// First guard: nothing but the agent's packets leaves by a real interface.
fn postrouting(phase: Phase) -> Vec<Rule> {
    let mut rules = vec![rule([Match::Mark(mark::OURS)], Target::Return)];
    rules.extend(old(phase));
    rules.extend([rule([Match::Tcp(vec![Refusal]), NoOwner], Target::Return), rule([], Target::Drop)]);
    rules
}

/// Second guard, in a table of its own: what the mangle table did not treat goes nowhere.
fn filter(phase: Phase) -> Table {
    let hbone = |more| {
        let mut conditions = vec![ToPort(HBONE_PORT)];
        conditions.extend(more);
        Match::Tcp(conditions)
    };
    let mut input = vec![
        rule([FromLoopback, Match::Mark(mark::LOOP)], Target::Drop),
        rule([FromLoopback], Target::Return),
        rule([Match::Mark(mark::TAKEN)], Target::Return),
    ];
    input.extend(old(phase));
    input.extend([
        rule([hbone(Some(NotSyn))], Target::Return),
        rule([hbone(None), TransparentSocket], Target::Return),
        rule([Match::Tcp(vec![NotSyn])], Target::Drop),
        rule([Socket], Target::Drop),
        rule([tcp()], Target::Reset),
    ]);
    let output = vec![
        rule([NotMark(mark::NONE)], Target::Return),
        rule([Match::Tcp(vec![Refusal]), NoOwner], Target::Return),
        rule([], Target::Drop),
    ];
    Table {
        name: TableName::Filter,
        chains: vec![Chain { name: "WEFT_IN", rules: input }, Chain { name: "WEFT_OUT", rules: output }],
        jumps: vec![
            Jump { from: "INPUT", matches: vec![tcp()], to: "WEFT_IN" },
            Jump { from: "OUTPUT", matches: vec![NotToLoopback, tcp()], to: "WEFT_OUT" },
        ],
    }
}

/// In a transition: what goes direct is let past. Conntrack picks up older connections in mid-stream, so one whose SYN it has
/// not seen is older.
///
/// The exception is the end of an older one that was silent since the switch: conntrack begins no connection with a FIN or
/// RST. Captured, it would be lost, and the other side would hold a dead connection for ever.
fn let_past(calls: Way, older: Way) -> Vec<Rule> {
    let mut rules = Vec::new();
    if older == Way::Direct {
        // A stray (`super::conntrack`) has its place: the mark would not stay, and the next packet would go the other way. It is sent
        // again after a second (RFC 6298 section 2), and by then the stray is forgotten.
        rules.push(rule([syn(), OfNoConnection], Target::Drop));
    }
    rules.push(rule([syn()], marked(calls)));
    match older {
        Way::Relayed => rules.push(rule([Connmark(mark::DIRECT)], Target::SetMark(mark::OLD))),
        Way::Direct => {
            let ends = |how| rule([Match::Tcp(vec![how]), OfNoConnection], Target::SetMark(mark::OLD));
            rules.extend([rule([NotConnmark(mark::RELAYED)], Target::SetMark(mark::OLD)), ends(Fin), ends(Rst)]);
        }
    }
    rules.push(rule([Match::Mark(mark::OLD)], Target::Return));
    rules
}

fn syn() -> Match {
    Match::Tcp(vec![Syn])
}

fn marked(way: Way) -> Target {
    Target::SetConnmark(match way {
        Way::Relayed => mark::RELAYED,
        Way::Direct => mark::DIRECT,
    })
}

fn old(phase: Phase) -> Option<Rule> {
    (phase != Phase::Steady).then(|| rule([Match::Mark(mark::OLD)], Target::Return))
}

fn tcp() -> Match {
    Match::Tcp(Vec::new())
}

fn rule<const N: usize>(matches: [Match; N], target: Target) -> Rule {
    Rule { matches: matches.into(), target }
}

#[cfg(test)]
mod tests;
