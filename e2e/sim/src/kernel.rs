//! One pod's packet filter: the real rules of a phase (`capture::ruleset`), read rule by rule as the kernel reads them.
//!
//! Only opening segments (SYN) are followed: what happens to a new connection is what the promises are about. The order
//! of tables is netfilter's: OUTPUT mangle, OUTPUT filter, policy routing, POSTROUTING mangle; PREROUTING mangle, INPUT filter.

use std::collections::BTreeMap;

use weft_node_agent::capture::course::{REMOVAL, Standing, order};
use weft_node_agent::capture::mark::{self, CapturePorts, Mark};
use weft_node_agent::capture::rules::{Match, Rule, Table, TableName, Target, TcpMatch};
use weft_node_agent::capture::ruleset::{Phase, tables};
use weft_node_agent::handover::Family;

/// What the kernel of one pod holds. It outlives every process.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// Which phase's rules a table holds; none of ours where it is missing.
    pub rules: BTreeMap<TableName, Phase>,
    /// The policy rule and its route are there.
    pub routed: bool,
    /// Somebody has called the pod: it is not new any more.
    pub called: bool,
}

/// What the kernel does at once; between two of them, anything may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Policy rule and route.
    Route,
    /// One table's rules of a phase.
    Put(TableName, Phase),
    /// Takes one table's rules out.
    Empty(TableName),
    /// Takes policy rule and route out.
    Unroute,
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
    /// What has to be committed for a phase, in the order of `Installer::apply`.
    #[must_use]
    pub fn commits(&self, phase: Phase) -> Vec<Commit> {
        let guarded = self.rules.contains_key(&TableName::Filter);
        let put = order(phase, guarded).map(|table| Commit::Put(table, phase));
        [Commit::Route].into_iter().chain(put).collect()
    }

    /// What has to be committed to take everything of ours out, in the order of `Installer::remove`.
    #[must_use]
    pub fn removal() -> Vec<Commit> {
        REMOVAL.map(Commit::Empty).into_iter().chain([Commit::Unroute]).collect()
    }

    /// Commits.
    pub fn commit(&mut self, commit: Commit) {
        match commit {
            Commit::Route => self.routed = true,
            Commit::Put(table, phase) => _ = self.rules.insert(table, phase),
            Commit::Empty(table) => _ = self.rules.remove(&table),
            Commit::Unroute => self.routed = false,
        }
    }

    /// Which rules stand, as `Installer::standing` says it.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let mut phases = self.rules.values();
        let first = *phases.next()?;
        let whole = self.rules.len() == REMOVAL.len() && phases.all(|phase| *phase == first);
        Some(if whole { Standing::Whole(first) } else { Standing::Damaged })
    }

    /// Whether everything of a phase is there.
    #[must_use]
    pub fn is_whole(&self, phase: Phase) -> bool {
        self.standing() == Some(Standing::Whole(phase)) && self.routed
    }

    /// A new call of the pod's application to another pod.
    #[must_use]
    pub fn call_out(&self, port: u16) -> Fate {
        let tables = self.tables();
        let mut packet =
            Packet { mark: 0, connection: 0, from_loopback: false, to_loopback: false, port, socket: false };
        for name in [TableName::Mangle, TableName::Filter] {
            if let Some(fate) = walk(&tables, name, "OUTPUT", &mut packet) {
                return fate;
            }
        }
        if holds(&mark::LOOP, packet.mark) && self.routed {
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
        let mut packet =
            Packet { mark: 0, connection: 0, from_loopback: false, to_loopback: false, port, socket: true };
        arrive(&self.tables(), &mut packet)
    }

    fn tables(&self) -> Vec<Table> {
        let of = |(name, phase): (&TableName, &Phase)| {
            tables(Family::V4, *phase, CapturePorts::default()).into_iter().find(|table| table.name == *name)
        };
        self.rules.iter().filter_map(of).collect()
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
        kernel.commits(phase).into_iter().for_each(|commit| kernel.commit(commit));
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
            for routed in [false, true] {
                let mut kernel = Kernel { routed, ..Kernel::default() };
                let left = [TableName::Mangle, TableName::Filter].into_iter().filter(|table| *table != flushed);
                left.for_each(|table| kernel.commit(Commit::Put(table, Phase::Steady)));
                assert_ne!(kernel.call_out(PORT), Fate::Direct, "{kernel:?}");
                assert_ne!(kernel.call_in(PORT), Fate::Direct, "{kernel:?}");
            }
        }
    }

    #[test]
    fn what_stands_is_read_back() {
        let mut kernel = Kernel::default();
        assert_eq!(kernel.standing(), None);
        for (count, commit) in kernel.commits(Phase::Steady).into_iter().enumerate() {
            kernel.commit(commit);
            let expected = [None, Some(Standing::Damaged), Some(Standing::Whole(Phase::Steady))][count];
            assert_eq!((kernel.standing(), kernel.is_whole(Phase::Steady)), (expected, count == 2));
        }
        Kernel::removal().into_iter().for_each(|commit| kernel.commit(commit));
        assert_eq!((kernel.standing(), kernel.routed), (None, false));
    }
}
