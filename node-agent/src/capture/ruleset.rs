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

/// What happens to connections that are older than the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Everything is captured; no conntrack.
    Steady,
    /// The pod begins to join: its own new calls and HBONE are captured; what comes in plaintext goes direct, because its
    /// callers have not heard yet that they should tunnel, and a policy would take them for strangers.
    EnrolOut,
    /// The pod is joining: old connections go on in plain, new ones are captured.
    Enrol,
    /// The pod begins to leave: new calls to it go direct, its own are still captured, because whom it calls may not have
    /// opened yet.
    ReleaseIn,
    /// The pod is leaving: relayed connections go on through the agent, new ones go direct.
    Release,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Steady, Self::EnrolOut, Self::Enrol, Self::ReleaseIn, Self::Release];

    /// New calls of the pod are told apart from old ones.
    fn sees_calls_out(self) -> bool {
        matches!(self, Self::EnrolOut | Self::Enrol | Self::Release)
    }

    /// New calls to the pod are told apart from old ones.
    fn sees_calls_in(self) -> bool {
        matches!(self, Self::Enrol | Self::ReleaseIn | Self::Release)
    }

    fn joins(self) -> bool {
        matches!(self, Self::EnrolOut | Self::Enrol)
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
    if phase.joins() {
        // On lo as well, where the agent's own dials go: they are new connections too.
        let rules = vec![see_syn(phase)].into_iter().flatten().collect();
        chains.push(Chain { name: "WEFT_SYN", rules });
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
    rules.extend(let_past(phase, phase.sees_calls_in()));
    rules.extend([
        rule([Match::Tcp(vec![NotSyn])], tproxy(ports.inbound)),
        // A SYN to a port where nobody listens is refused, not captured: probes of a dead application must fail.
        rule([tcp(), Socket], tproxy(ports.inbound)),
    ]);
    rules
}

fn output(phase: Phase) -> Vec<Rule> {
    let mut rules = vec![rule([Match::Mark(mark::OURS)], Target::Return)];
    rules.extend(let_past(phase, phase.sees_calls_out()));
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

/// While enrolling: connections whose SYN was not seen are old. While releasing: those whose SYN was seen are new.
/// Conntrack picks up old flows in mid-stream, so "saw a SYN since the switch" is "new".
///
/// The exception is the end of an old flow that was silent since the switch: conntrack begins no connection with a FIN or
/// RST. Captured, it would be lost, and the other side would hold a dead connection for ever.
///
/// A direction in which SYNs are not `seen` yet lets past only what the other direction decided: while a pod begins to
/// join, every call to it; while it begins to leave, answers to calls that came to it directly.
fn let_past(phase: Phase, seen: bool) -> Vec<Rule> {
    let leaves = match phase {
        Phase::Steady => return Vec::new(),
        Phase::EnrolOut | Phase::Enrol => NotConnmark(mark::SEEN_ENROLLING),
        Phase::ReleaseIn | Phase::Release => Connmark(mark::SEEN_RELEASING),
    };
    let mut rules: Vec<_> = see_syn(phase).filter(|_| seen).into_iter().collect();
    rules.push(rule([leaves], Target::SetMark(mark::OLD)));
    if phase.joins() {
        let ends = |how| rule([Match::Tcp(vec![how]), OfNoConnection], Target::SetMark(mark::OLD));
        rules.extend([ends(Fin), ends(Rst)]);
    }
    rules.extend(old(phase));
    rules
}

fn see_syn(phase: Phase) -> Option<Rule> {
    let seen = match phase {
        Phase::Steady => return None,
        Phase::EnrolOut | Phase::Enrol => mark::SEEN_ENROLLING,
        Phase::ReleaseIn | Phase::Release => mark::SEEN_RELEASING,
    };
    Some(rule([Match::Tcp(vec![Syn])], Target::SetConnmark(seen)))
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
