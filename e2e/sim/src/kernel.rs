//! One pod's packet filter: the real rules of a phase (`capture::ruleset`), read rule by rule as the kernel reads them.
//!
//! Only opening segments (SYN) are followed: what happens to a new connection is what the promises are about. The order
//! of tables is netfilter's: OUTPUT mangle, OUTPUT filter, policy routing, POSTROUTING mangle; PREROUTING mangle, INPUT filter.

use std::collections::BTreeSet;

use weft_node_agent::capture::mark::{self, CapturePorts, Mark};
use weft_node_agent::capture::rules::{Match, Rule, Table, TableName, Target, TcpMatch};
use weft_node_agent::capture::ruleset::{Phase, tables};
use weft_node_agent::handover::Family;

/// What the kernel of one pod holds. It outlives every process.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// The phase whose rules were installed last; none: no rules of ours.
    pub phase: Option<Phase>,
    /// Tables that somebody has emptied since.
    pub flushed: BTreeSet<TableName>,
    /// Somebody has taken the policy rule or its route away since.
    pub unrouted: bool,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Goes on as it is: plaintext, past the mesh.
    Direct,
    /// A listener of the agent has it.
    Captured,
    /// Goes nowhere.
    Dropped,
    /// Is refused with a RST.
    Refused,
}

/// One opening segment on its way.
struct Packet {
    mark: u32,
    connection: u32,
    from_loopback: bool,
    to_loopback: bool,
    port: u16,
    /// A local socket would take it.
    socket: bool,
}

enum Verdict {
    Pass,
    Captured,
    Drop,
    Reset,
}

impl Kernel {
    /// Installs the rules of a phase, whole.
    pub fn install(&mut self, phase: Phase) {
        *self = Self { phase: Some(phase), flushed: BTreeSet::new(), unrouted: false };
    }

    /// Takes everything of ours out.
    pub fn remove(&mut self) {
        *self = Self::default();
    }

    /// Whether everything is as it was installed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.flushed.is_empty() && !self.unrouted
    }

    /// A new call of the pod's application to another pod.
    #[must_use]
    pub fn call_out(&self, port: u16) -> Fate {
        let Some(tables) = self.tables() else { return Fate::Direct };
        let mut packet =
            Packet { mark: 0, connection: 0, from_loopback: false, to_loopback: false, port, socket: false };
        for name in [TableName::Mangle, TableName::Filter] {
            if let Some(fate) = walk(&tables, name, "OUTPUT", &mut packet) {
                return fate;
            }
        }
        if holds(&mark::LOOP, packet.mark) && !self.unrouted {
            packet.to_loopback = true;
        }
        if let Some(fate) = walk(&tables, TableName::Mangle, "POSTROUTING", &mut packet) {
            return fate;
        }
        if !packet.to_loopback {
            return Fate::Direct;
        }
        packet.from_loopback = true;
        arrive(&tables, &mut packet)
    }

    /// A new plaintext call to an application of the pod that listens.
    #[must_use]
    pub fn call_in(&self, port: u16) -> Fate {
        let Some(tables) = self.tables() else { return Fate::Direct };
        let mut packet =
            Packet { mark: 0, connection: 0, from_loopback: false, to_loopback: false, port, socket: true };
        arrive(&tables, &mut packet)
    }

    fn tables(&self) -> Option<Vec<Table>> {
        let phase = self.phase?;
        let all = tables(Family::V4, phase, CapturePorts::default());
        Some(all.into_iter().filter(|table| !self.flushed.contains(&table.name)).collect())
    }
}

fn arrive(tables: &[Table], packet: &mut Packet) -> Fate {
    if let Some(fate) = walk(tables, TableName::Mangle, "PREROUTING", packet) {
        // TPROXY has found its listener; what is left is the filter's consent.
        if fate != Fate::Captured {
            return fate;
        }
        return walk(tables, TableName::Filter, "INPUT", packet).unwrap_or(Fate::Captured);
    }
    walk(tables, TableName::Filter, "INPUT", packet).unwrap_or(Fate::Direct)
}

fn walk(tables: &[Table], name: TableName, hook: &str, packet: &mut Packet) -> Option<Fate> {
    let table = tables.iter().find(|table| table.name == name)?;
    for jump in table.jumps.iter().filter(|jump| jump.from == hook) {
        if !jump.matches.iter().all(|one| fits(one, packet)) {
            continue;
        }
        let chain = table.chains.iter().find(|chain| chain.name == jump.to)?;
        match read(&chain.rules, packet) {
            Verdict::Pass => {}
            Verdict::Captured => return Some(Fate::Captured),
            Verdict::Drop => return Some(Fate::Dropped),
            Verdict::Reset => return Some(Fate::Refused),
        }
    }
    None
}

fn read(rules: &[Rule], packet: &mut Packet) -> Verdict {
    for rule in rules.iter() {
        if !rule.matches.iter().all(|one| fits(one, packet)) {
            continue;
        }
        match &rule.target {
            Target::Tproxy { mark, .. } => {
                set(&mut packet.mark, mark);
                return Verdict::Captured;
            }
            Target::SetMark(mark) => set(&mut packet.mark, mark),
            Target::SetConnmark(mark) => set(&mut packet.connection, mark),
            Target::Return => return Verdict::Pass,
            Target::Drop => return Verdict::Drop,
            Target::Reset => return Verdict::Reset,
        }
    }
    Verdict::Pass
}

/// The application's own opening segment: it has an owner, conntrack knows it, it is no RST and no FIN.
fn fits(condition: &Match, packet: &Packet) -> bool {
    match condition {
        Match::FromLoopback => packet.from_loopback,
        Match::NotToLoopback => !packet.to_loopback,
        Match::Tcp(conditions) => conditions.iter().all(|one| match one {
            TcpMatch::ToPort(port) => *port == packet.port,
            TcpMatch::NotToPorts(ports) => !ports.contains(&packet.port),
            TcpMatch::Syn => true,
            TcpMatch::NotSyn | TcpMatch::Refusal | TcpMatch::Fin | TcpMatch::Rst => false,
        }),
        Match::Mark(mark) => holds(mark, packet.mark),
        Match::NotMark(mark) => !holds(mark, packet.mark),
        Match::Connmark(mark) => holds(mark, packet.connection),
        Match::NotConnmark(mark) => !holds(mark, packet.connection),
        Match::Socket => packet.socket,
        Match::OfNoConnection | Match::TransparentSocket | Match::NoOwner => false,
    }
}

fn holds(mark: &Mark, value: u32) -> bool {
    value & mark.mask == mark.value
}

fn set(value: &mut u32, mark: &Mark) {
    *value = (*value & !mark.mask) | mark.value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::PORT;

    fn fates(phase: Phase) -> (Fate, Fate) {
        let mut kernel = Kernel::default();
        kernel.install(phase);
        (kernel.call_out(PORT), kernel.call_in(PORT))
    }

    #[test]
    fn every_phase_does_what_its_name_says() {
        assert_eq!(fates(Phase::Steady), (Fate::Captured, Fate::Captured));
        assert_eq!(fates(Phase::EnrolOut), (Fate::Captured, Fate::Direct));
        assert_eq!(fates(Phase::Enrol), (Fate::Captured, Fate::Captured));
        assert_eq!(fates(Phase::ReleaseIn), (Fate::Captured, Fate::Direct));
        assert_eq!(fates(Phase::Release), (Fate::Direct, Fate::Direct));
    }

    #[test]
    fn either_guard_alone_keeps_a_steady_pod_closed() {
        for flushed in [TableName::Mangle, TableName::Filter] {
            for unrouted in [false, true] {
                let kernel = Kernel { phase: Some(Phase::Steady), flushed: [flushed].into(), unrouted };
                assert_ne!(kernel.call_out(PORT), Fate::Direct, "{kernel:?}");
                assert_ne!(kernel.call_in(PORT), Fate::Direct, "{kernel:?}");
            }
        }
    }
}
