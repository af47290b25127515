//! The course of joining and leaving: which act follows in one pod, by what stands there (`docs/capture.md`).
//! Pure. `join` does the acts; the simulation (`e2e/sim`) does them to kernels of its own.

use super::compare::{Found, deviations};
use super::mark::CapturePorts;
use super::rules::TableName;
use super::ruleset::{Phase, Way, tables};
use crate::handover::Family;

/// Rules that an earlier life of the capture half left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of one phase; of two with the same rules the one that joins.
    Whole(Phase),
    /// Ours, but of no phase.
    Damaged,
}

/// How a pod is taken in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What it has of connections is reset, and everything is captured at once.
    Reset,
    /// It was captured whole, and stays so.
    Keep,
    /// Its callers have heard: plaintext is captured from now on, too. The way of older connections.
    Close(Way),
    /// Its own calls and HBONE are captured; its callers have to hear of it first. The way of older connections.
    Announce(Way),
}

/// A pod in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Whose rules were put in last.
    pub phase: Phase,
    /// Whether it must be captured without a transition.
    pub strict: bool,
    /// Whether the mesh has had time to hear of the last step.
    pub settled: bool,
    /// Whether the last act failed: it may have been done in part.
    pub failed: bool,
}

/// What is done next with a pod in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// As [`entry`] says, once more.
    Join,
    /// See [`Entry::Close`].
    Close,
    /// Whether its old connections have ended; when they have, the steady rules.
    WaitForOld,
    /// New calls to it go direct.
    Open,
    /// New calls of it go direct, too.
    Leave,
    /// Nothing.
    Stay,
}

/// How a pod is taken in hand in which rules are `standing`. `is_new`: nobody has ever called it; asked only where it
/// matters.
///
/// # Errors
/// When that cannot be found out.
pub fn entry<E>(
    strict: bool,
    standing: Option<Standing>,
    is_new: impl FnOnce() -> Result<bool, E>,
) -> Result<Entry, E> {
    Ok(match standing {
        _ if strict => Entry::Reset,
        Some(Standing::Damaged) => Entry::Reset,
        Some(Standing::Whole(Phase::Steady)) => Entry::Keep,
        Some(Standing::Whole(Phase::Enrol(older))) => Entry::Close(older),
        // Nobody knows it yet, so nobody has to hear first: no moment in plaintext.
        None if is_new()? => Entry::Reset,
        None => Entry::Announce(Way::Direct),
        // It joins, or joins again before it has left: what went direct meanwhile goes on.
        Some(Standing::Whole(Phase::EnrolOut(older) | Phase::ReleaseIn(older) | Phase::Release(older))) => {
            Entry::Announce(older)
        }
    })
}

impl InHand {
    /// Whether it is on its way out.
    #[must_use]
    pub fn leaves(&self) -> bool {
        leaves(self.phase)
    }

    /// The next act of a pod that is to be captured.
    #[must_use]
    pub fn joining(&self) -> Act {
        match self.phase {
            _ if self.failed || self.leaves() => Act::Join,
            Phase::EnrolOut(_) | Phase::Enrol(_) if self.strict => Act::Join,
            Phase::EnrolOut(_) if self.settled => Act::Close,
            Phase::Enrol(_) => Act::WaitForOld,
            _ => Act::Stay,
        }
    }

    /// The next act of a pod that is to be released.
    #[must_use]
    pub fn leaving(&self) -> Act {
        match self.phase {
            _ if !self.leaves() => Act::Open,
            Phase::ReleaseIn(_) if self.settled => Act::Leave,
            _ if self.settled && self.failed => Act::Leave,
            _ => Act::Stay,
        }
    }
}

/// Whether a pod in this phase is on its way out.
#[must_use]
pub fn leaves(phase: Phase) -> bool {
    matches!(phase, Phase::ReleaseIn(_) | Phase::Release(_))
}

/// Which rules stand, by what `iptables-save` shows of each table. `guarded`: the guard's own table stands, of whatever
/// phase; asked only where it matters.
///
/// # Errors
/// When that cannot be found out.
pub fn standing<E>(
    shown: &[(Family, TableName, Found)],
    ports: CapturePorts,
    guarded: impl FnOnce() -> Result<bool, E>,
) -> Result<Option<Standing>, E> {
    // A guard that stands alone is what is left of a captured pod whose every iptables table somebody emptied. Taken for a
    // pod that joins, it would be opened for the time of joining.
    if shown.iter().all(|(_, _, found)| found.count_ours() == 0) {
        return Ok(guarded()?.then_some(Standing::Damaged));
    }
    let whole = |phase: &Phase| {
        shown.iter().all(|(family, name, found)| {
            let wanted = tables(*family, *phase, ports);
            wanted.iter().filter(|table| table.name == *name).all(|table| deviations(table, found).is_empty())
        })
    };
    Ok(Some(Phase::ALL.into_iter().find(whole).map_or(Standing::Damaged, Standing::Whole)))
}

/// Whether the guard's own table is committed before the tables of iptables, for the reasons of [`order`]. `stands`: there
/// is one, of whatever phase; asked only where it matters.
///
/// # Errors
/// When that cannot be found out.
pub fn guard_comes_first<E>(phase: Phase, stands: impl FnOnce() -> Result<bool, E>) -> Result<bool, E> {
    Ok(phase != Phase::Steady && stands()?)
}

/// The order in which the tables of a phase are committed. `guarded`: a guard of ours stands in the filter table.
#[must_use]
pub fn order(phase: Phase, guarded: bool) -> [TableName; 2] {
    // A guard that stands must let the marks of a transition pass before packets carry them; where none stands yet, it
    // comes last, since it stops what the mangle table has not marked.
    if phase != Phase::Steady && guarded {
        [TableName::Filter, TableName::Mangle]
    } else {
        [TableName::Mangle, TableName::Filter]
    }
}

/// The order in which tables are emptied. The guard goes first: the mangle rules without it still capture, the guard
/// without them stops everything.
pub const REMOVAL: [TableName; 2] = [TableName::Filter, TableName::Mangle];

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rstest::rstest;

    use super::*;
    use crate::capture::rules::{Chain, Table};

    #[rstest]
    #[case(None, true, Entry::Reset)]
    #[case(None, false, Entry::Announce(Way::Direct))]
    #[case(Some(Standing::Whole(Phase::EnrolOut(Way::Direct))), false, Entry::Announce(Way::Direct))]
    #[case(Some(Standing::Whole(Phase::Enrol(Way::Direct))), false, Entry::Close(Way::Direct))]
    #[case(Some(Standing::Whole(Phase::Enrol(Way::Relayed))), false, Entry::Close(Way::Relayed))]
    #[case(Some(Standing::Whole(Phase::Steady)), false, Entry::Keep)]
    #[case(Some(Standing::Whole(Phase::ReleaseIn(Way::Relayed))), false, Entry::Announce(Way::Relayed))]
    #[case(Some(Standing::Whole(Phase::Release(Way::Relayed))), false, Entry::Announce(Way::Relayed))]
    #[case(Some(Standing::Whole(Phase::Release(Way::Direct))), false, Entry::Announce(Way::Direct))]
    #[case(Some(Standing::Damaged), false, Entry::Reset)]
    fn a_pod_is_taken_in_hand_by_what_stands(
        #[case] standing: Option<Standing>,
        #[case] new: bool,
        #[case] expected: Entry,
    ) {
        assert_eq!(entry::<Infallible>(false, standing, || Ok(new)), Ok(expected));
        assert_eq!(entry::<Infallible>(true, standing, || Ok(new)), Ok(Entry::Reset), "strict");
    }

    /// What `iptables-save` shows when all of a phase is there.
    fn shown(phase: Phase) -> Vec<(Family, TableName, Found)> {
        let show = |table: &Table| {
            let kernels = table.jumps.iter().map(|jump| format!(":{} ACCEPT [0:0]\n", jump.from));
            let ours = table.chains.iter().map(|chain| format!(":{} - [0:0]\n", chain.name));
            let jumps = table.jumps.iter().map(|jump| format!("-A {}\n", jump.specification()));
            let rules = table.chains.iter().flat_map(Chain::lines).map(|line| line + "\n");
            let text: String = kernels.chain(ours).chain(jumps).chain(rules).collect();
            (Family::V4, table.name, Found::parse(&text))
        };
        tables(Family::V4, phase, CapturePorts::default()).iter().map(show).collect()
    }

    #[test]
    fn a_guard_that_stands_alone_is_what_is_left_of_a_captured_pod() {
        let by = |shown: &[_], guard| standing::<Infallible>(shown, CapturePorts::default(), || Ok(guard)).unwrap();
        let nothing = [TableName::Mangle, TableName::Filter].map(|name| (Family::V4, name, Found::default()));
        assert_eq!((by(&nothing, false), by(&nothing, true)), (None, Some(Standing::Damaged)));
        for phase in Phase::ALL {
            let whole = shown(phase);
            let as_found = match phase {
                Phase::ReleaseIn(older) => Phase::EnrolOut(older),
                other => other,
            };
            let found = Some(Standing::Whole(as_found));
            assert_eq!((by(&whole, false), by(&whole, true)), (found, found));
            let half = [whole[0].clone(), nothing[1].clone()];
            assert_eq!(by(&half, true), Some(Standing::Damaged), "{phase:?}");
        }
    }

    #[rstest]
    #[case::announced(Phase::EnrolOut(Way::Direct), false, Act::Stay, Act::Open)]
    #[case::heard(Phase::EnrolOut(Way::Direct), true, Act::Close, Act::Open)]
    #[case::old_connections(Phase::Enrol(Way::Direct), true, Act::WaitForOld, Act::Open)]
    #[case::captured(Phase::Steady, true, Act::Stay, Act::Open)]
    #[case::opened(Phase::ReleaseIn(Way::Direct), false, Act::Join, Act::Stay)]
    #[case::heard_that_it_leaves(Phase::ReleaseIn(Way::Direct), true, Act::Join, Act::Leave)]
    #[case::left(Phase::Release(Way::Direct), true, Act::Join, Act::Stay)]
    fn what_follows(#[case] phase: Phase, #[case] settled: bool, #[case] joining: Act, #[case] leaving: Act) {
        let now = InHand { phase, strict: false, settled, failed: false };
        assert_eq!((now.joining(), now.leaving()), (joining, leaving));
        assert_eq!(InHand { failed: true, ..now }.joining(), Act::Join, "what failed is begun anew");
        let strict = InHand { strict: true, ..now }.joining();
        assert_eq!(strict, if phase == Phase::Steady { Act::Stay } else { Act::Join }, "strict");
    }
}
