//! One pod's packet filter: what the real rules of a phase (`capture::ruleset`, `capture::guard`) make of a new connection,
//! as long as they are there: whoever has rights in the pod may take them away ([`crate::hand`]).
//!
//! The order of tables is netfilter's: OUTPUT mangle, filter, guard, policy routing, POSTROUTING mangle, guard; PREROUTING
//! mangle, INPUT filter, guard.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;

use weft_node_agent::capture::compare::{Found, nothing, repair};
use weft_node_agent::capture::course::{REMOVAL, Standing, guard_comes_first, order, standing};
use weft_node_agent::capture::mark::{self, CapturePorts};
use weft_node_agent::capture::rules::{Table, TableName};
use weft_node_agent::capture::ruleset::{Phase, tables};
use weft_node_agent::handover::Family;

use crate::hand::Hand;
use crate::iptables::{Chains, HOOKS};
use crate::nft;
use crate::packet::{Packet, Verdict, holds};
use crate::truth::PORT;

/// What the kernel of one pod holds. It outlives every process.
#[derive(Clone)]
pub struct Kernel {
    tables: BTreeMap<TableName, Chains>,
    /// The guard's own table.
    guard: Option<nft::Table>,
    /// The node has an nft that works: there is to be a guard.
    nft: bool,
    routed: bool,
    /// Somebody has called the pod: it is not new any more.
    pub called: bool,
    /// What somebody has taken or altered by hand, and nobody has repaired since.
    damaged: BTreeSet<Part>,
    /// A repair has begun since then.
    repaired: bool,
    seen: Seen,
}

/// What follows from all that, found out anew whenever something changes.
#[derive(Clone)]
struct Seen {
    shown: [(Family, TableName, Found); 2],
    standing: Option<Standing>,
    call_out: Fate,
    call_in: Fate,
}

/// What keeps a captured pod closed; see [`Kernel::is_exposed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Table(TableName),
    Guard,
}

/// What the kernel does at once; between two of them, anything may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Policy rule and route.
    Route,
    /// One table's rules of a phase.
    Put(TableName, Phase),
    /// The guard of a phase.
    Guard(Phase),
    /// Takes one table's rules out.
    Empty(TableName),
    /// Takes the guard out.
    Unguard,
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
    /// Comes back to the pod that it is from, whomever it was meant for.
    Astray,
}

impl Kernel {
    /// Nothing of ours is there. `nft`: the node has an nft that works.
    #[must_use]
    pub fn new(nft: bool) -> Self {
        let tables: BTreeMap<_, _> = REMOVAL.map(|name| (name, Chains::default())).into();
        let shown = REMOVAL.map(|name| (Family::V4, name, Found::default()));
        let seen = Seen { shown, standing: None, call_out: Fate::Direct, call_in: Fate::Direct };
        Self { tables, guard: None, nft, routed: false, called: false, damaged: BTreeSet::new(), repaired: false, seen }
    }

    /// What has to be committed for a phase, in the order of `Installer::apply`.
    #[must_use]
    pub fn commits(&self, phase: Phase) -> Vec<Commit> {
        let Ok(first) = guard_comes_first(phase, || Ok::<_, Infallible>(self.guard.is_some()));
        let guard = || self.nft.then_some(Commit::Guard(phase));
        let guarded = phase != Phase::Steady && self.ours(TableName::Filter) > 0;
        let put = order(phase, guarded).map(|table| Commit::Put(table, phase));
        let (before, after) = if first { (guard(), None) } else { (None, guard()) };
        [Commit::Route].into_iter().chain(before).chain(put).chain(after).collect()
    }

    /// What has to be committed when the auditor looks, in the order of `Installer::mend`; nothing if all is as it should be.
    #[must_use]
    pub fn repairs(&self, phase: Phase) -> Vec<Commit> {
        let guard = self.nft.then_some(Commit::Guard(phase)).filter(|_| !self.is_guarded(phase));
        let rest = if self.has_rules(phase) { Vec::new() } else { self.commits(phase) };
        guard.into_iter().chain(rest).collect()
    }

    /// What has to be committed to close a pod that cannot be captured, in the order of `Installer::close`.
    #[must_use]
    pub fn closing(&self) -> Vec<Commit> {
        let guard = self.nft.then_some(Commit::Guard(Phase::Steady));
        guard.into_iter().chain(self.commits(Phase::Steady)).collect()
    }

    /// What has to be committed to take everything of ours out, in the order of `Installer::remove`.
    #[must_use]
    pub fn removal(&self) -> Vec<Commit> {
        let guard = self.nft.then_some(Commit::Unguard);
        guard.into_iter().chain(REMOVAL.map(Commit::Empty)).chain([Commit::Unroute]).collect()
    }

    /// Commits.
    pub fn commit(&mut self, commit: Commit) {
        match commit {
            Commit::Route => self.routed = true,
            Commit::Put(name, phase) => {
                let wanted = tables(Family::V4, phase, CapturePorts::default()).into_iter();
                wanted.filter(|table| table.name == name).for_each(|table| self.make(&table));
            }
            Commit::Guard(phase) => {
                self.guard = Some(nft::Table::of(phase));
                self.damaged.remove(&Part::Guard);
            }
            Commit::Empty(name) => self.make(&nothing(name)),
            Commit::Unguard => {
                self.guard = None;
                self.damaged.remove(&Part::Guard);
            }
            Commit::Unroute => self.routed = false,
        }
        self.look();
    }

    fn make(&mut self, wanted: &Table) {
        let text = repair(wanted, self.found(wanted.name));
        if let (Some(text), Some(chains)) = (text, self.tables.get_mut(&wanted.name)) {
            chains.restore(&text);
            self.read(wanted.name);
        }
        self.damaged.remove(&Part::Table(wanted.name));
    }

    /// Somebody does something by hand.
    pub fn suffer(&mut self, hand: Hand) {
        self.repaired = false;
        match hand {
            Hand::Flush(name) => self.damage(name, Chains::flush),
            Hand::Delete(name) => self.damage(name, |chains| *chains = Chains::default()),
            Hand::DeleteTables => REMOVAL.map(Hand::Delete).into_iter().for_each(|one| self.suffer(one)),
            Hand::Cut(name, n) => self.damage(name, |chains| chains.cut(n)),
            Hand::Accept(name, n) => self.damage(name, |chains| chains.accept(HOOKS[n % HOOKS.len()])),
            Hand::Unroute => self.routed = false,
            Hand::Unguard => {
                if self.guard.take().is_some() {
                    self.damaged.insert(Part::Guard);
                }
            }
            Hand::CutGuard(n) => self.damage_guard(|guard| guard.cut(n)),
            Hand::AcceptInGuard(n) => self.damage_guard(|guard| guard.accept(n)),
            Hand::FlushRuleset => {
                [Hand::DeleteTables, Hand::Unguard].into_iter().for_each(|one| self.suffer(one));
            }
        }
        self.look();
    }

    fn damage(&mut self, name: TableName, how: impl FnOnce(&mut Chains)) {
        if self.ours(name) > 0 {
            self.damaged.insert(Part::Table(name));
        }
        if let Some(chains) = self.tables.get_mut(&name) {
            how(chains);
        }
        self.read(name);
    }

    fn read(&mut self, name: TableName) {
        let (table, shown) = (&self.tables[&name], self.seen.shown.iter_mut());
        shown.filter(|one| one.1 == name).for_each(|one| one.2 = table.found());
    }

    fn damage_guard(&mut self, how: impl FnOnce(&mut nft::Table)) {
        if let Some(guard) = &mut self.guard {
            how(guard);
            self.damaged.insert(Part::Guard);
        }
    }

    /// Whether so much was taken away or altered by hand that nothing is promised until somebody repairs it. The guard alone
    /// keeps a captured pod closed, and so do the rules of mangle; those of filter do with the policy rule, without which
    /// they take what is marked for `lo` for treated.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        if self.damaged.is_empty() || self.repaired {
            return false;
        }
        let hurt = |part| self.damaged.contains(&part);
        let guard = !self.nft || hurt(Part::Guard);
        guard && hurt(Part::Table(TableName::Mangle)) && (hurt(Part::Table(TableName::Filter)) || !self.routed)
    }

    /// An auditor has done the first thing of a repair. Where there is a guard, that closes the pod.
    pub fn repair_begun(&mut self) {
        self.repaired = self.nft;
    }

    fn look(&mut self) {
        self.seen.standing = self.stands(self.guard.is_some());
        (self.seen.call_out, self.seen.call_in) = (self.leave(), self.arrive(Packet::arriving(PORT)));
    }

    /// Which rules stand, as `Installer::standing` says it. `guard`: one is seen.
    #[must_use]
    pub fn stands(&self, guard: bool) -> Option<Standing> {
        let Ok(found) = standing(&self.seen.shown, CapturePorts::default(), || Ok::<_, Infallible>(guard));
        found
    }

    /// Which rules stand.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.seen.standing
    }

    /// Whether everything of a phase is there.
    #[must_use]
    pub fn is_whole(&self, phase: Phase) -> bool {
        self.has_rules(phase) && (!self.nft || self.is_guarded(phase))
    }

    fn has_rules(&self, phase: Phase) -> bool {
        let stands = matches!(self.standing(), Some(Standing::Whole(found)) if found.looks_like(phase));
        stands && self.routed
    }

    fn is_guarded(&self, phase: Phase) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.stands(phase))
    }

    /// Whether nothing of ours is there.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.standing().is_none() && !self.routed
    }

    /// Whether somebody who looks for what is left finds something, as `Place::is_touched` does.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        !self.is_free()
    }

    fn found(&self, name: TableName) -> &Found {
        let [one, other] = &self.seen.shown;
        if one.1 == name { &one.2 } else { &other.2 }
    }

    fn ours(&self, name: TableName) -> usize {
        self.found(name).count_ours()
    }

    /// A new call of the pod's application to another pod.
    #[must_use]
    pub fn call_out(&self) -> Fate {
        self.seen.call_out
    }

    /// A new plaintext call to an application of the pod that listens.
    #[must_use]
    pub fn call_in(&self) -> Fate {
        self.seen.call_in
    }

    fn leave(&self) -> Fate {
        let mut packet = Packet::leaving(PORT);
        let (mangle, filter) = (&self.tables[&TableName::Mangle], &self.tables[&TableName::Filter]);
        let stopped = stopped(mangle.walk("OUTPUT", &mut packet))
            .or_else(|| stopped(filter.walk("OUTPUT", &mut packet)))
            .or_else(|| stopped(self.guard.as_ref()?.walk("output", &packet)));
        if let Some(fate) = stopped {
            return fate;
        }
        packet.to_loopback = holds(&mark::LOOP, packet.mark) && self.routed;
        let stopped = self::stopped(mangle.walk("POSTROUTING", &mut packet))
            .or_else(|| self::stopped(self.guard.as_ref()?.walk("postrouting", &packet)));
        if let Some(fate) = stopped {
            return fate;
        }
        if !packet.to_loopback {
            return Fate::Direct;
        }
        packet.from_loopback = true;
        match self.arrive(packet) {
            Fate::Direct => Fate::Astray,
            fate => fate,
        }
    }

    fn arrive(&self, mut packet: Packet) -> Fate {
        let (mangle, filter) = (&self.tables[&TableName::Mangle], &self.tables[&TableName::Filter]);
        let before = stopped(mangle.walk("PREROUTING", &mut packet));
        // TPROXY has found its listener; what is left is the consent of filter and guard.
        let taken = match before {
            None | Some(Fate::Captured) => before.unwrap_or(Fate::Direct),
            Some(fate) => return fate,
        };
        stopped(filter.walk("INPUT", &mut packet))
            .or_else(|| stopped(self.guard.as_ref()?.walk("input", &packet)))
            .unwrap_or(taken)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tables, guard, nft, routed, called, damaged, repaired: _, seen } = self;
        writeln!(f, "{:?}, nft {nft}, routed {routed}, called {called}, damaged {damaged:?}", seen.standing)?;
        let phase = guard.as_ref().map(|guard| Phase::ALL.into_iter().find(|phase| guard.stands(*phase)));
        writeln!(f, "guard of {phase:?}")?;
        tables.iter().try_for_each(|(name, chains)| writeln!(f, "*{name}\n{chains:?}"))
    }
}

fn stopped(verdict: Verdict) -> Option<Fate> {
    match verdict {
        Verdict::Pass => None,
        Verdict::Captured => Some(Fate::Captured),
        Verdict::Drop => Some(Fate::Dropped),
        Verdict::Reset => Some(Fate::Refused),
    }
}

#[cfg(test)]
mod tests;
