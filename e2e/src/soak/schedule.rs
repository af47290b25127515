//! Which faults come when: drawn from a seed. Pure.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Quiet time before the first fault and between the end of one and the next.
const QUIET: std::ops::Range<u64> = 1_000..4_000;
/// How long a fault lasts, before it is mended (where somebody has to mend it).
const LASTS: std::ops::Range<u64> = 200..2_500;

/// Something that goes wrong on a node (1 or 2), or in the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of the proxy half; started again when it ends.
    KillProxy(u8),
    /// kill -9 of the capture half; started again when it ends.
    KillCapture(u8),
    /// kill -9 of both halves; started again when it ends.
    KillBoth(u8),
    /// A second proxy half takes over; the first one drains.
    Upgrade(u8),
    /// SIGSTOP of the proxy half; SIGCONT when it ends.
    Freeze(u8),
    /// kill -9 of the control plane; started again when it ends.
    KillServer,
    /// SIGTERM of the control plane, and its start at once.
    RestartServer,
    /// kill -9 of the control plane, and its start without any state: another certificate authority, nothing known of who is
    /// captured.
    EmptyState,
    /// kill -9 of the control plane, and its start before an empty directory, which is empty for the agents, too; what was in it
    /// is back when the fault ends.
    EmptySource,
    /// The wire to a node is cut; whole again when the fault ends.
    CutWire(u8),
    /// The rules of table mangle in the client's pod go; the auditor puts them back.
    FlushMangle,
    /// The routing rule of the client's pod goes; the auditor puts it back.
    DeleteRoute,
    /// A policy denies all calls to the server; it goes when the fault ends.
    DenyAll,
    /// The server's pod reports that it is not ready; it is again when the fault ends.
    Unready,
    /// One endpoint of two misbehaves, until the fault ends.
    Endpoint(Misbehaviour),
    /// A neighbour of the client opens connections as fast as it can.
    Flood,
}

/// What an endpoint does to whoever calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misbehaviour {
    /// Its program is gone.
    Refuses,
    /// It accepts, and never answers.
    Hangs,
    /// It accepts, and resets.
    Resets,
}

/// Every kind, on every node that it can meet.
pub const ALL: [Fault; 24] = [
    Fault::KillProxy(1),
    Fault::KillProxy(2),
    Fault::KillCapture(1),
    Fault::KillCapture(2),
    Fault::KillBoth(1),
    Fault::KillBoth(2),
    Fault::Upgrade(1),
    Fault::Upgrade(2),
    Fault::Freeze(1),
    Fault::Freeze(2),
    Fault::KillServer,
    Fault::RestartServer,
    Fault::EmptyState,
    Fault::EmptySource,
    Fault::CutWire(1),
    Fault::CutWire(2),
    Fault::FlushMangle,
    Fault::DeleteRoute,
    Fault::DenyAll,
    Fault::Unready,
    Fault::Endpoint(Misbehaviour::Refuses),
    Fault::Endpoint(Misbehaviour::Hangs),
    Fault::Endpoint(Misbehaviour::Resets),
    Fault::Flood,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillProxy(node) => write!(f, "kill -9 of the proxy half of node{node}"),
            Self::KillCapture(node) => write!(f, "kill -9 of the capture half of node{node}"),
            Self::KillBoth(node) => write!(f, "kill -9 of both halves of node{node}"),
            Self::Upgrade(node) => write!(f, "upgrade of the proxy half of node{node}"),
            Self::Freeze(node) => write!(f, "SIGSTOP of the proxy half of node{node}"),
            Self::KillServer => write!(f, "kill -9 of the control plane"),
            Self::RestartServer => write!(f, "restart of the control plane"),
            Self::EmptyState => write!(f, "kill -9 of the control plane, and its start without any state"),
            Self::EmptySource => write!(f, "kill -9 of the control plane, and its start before an empty directory"),
            Self::CutWire(node) => write!(f, "the wire to node{node} cut"),
            Self::FlushMangle => write!(f, "table mangle of the client's pod emptied"),
            Self::DeleteRoute => write!(f, "routing rule of the client's pod deleted"),
            Self::DenyAll => write!(f, "a policy that denies everything"),
            Self::Unready => write!(f, "the server's pod not ready"),
            Self::Endpoint(Misbehaviour::Refuses) => write!(f, "one endpoint of two refuses"),
            Self::Endpoint(Misbehaviour::Hangs) => write!(f, "one endpoint of two hangs"),
            Self::Endpoint(Misbehaviour::Resets) => write!(f, "one endpoint of two resets"),
            Self::Flood => write!(f, "a neighbour opens connections without end"),
        }
    }
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Quiet time before it, from when traffic had recovered from the one before.
    pub after: Duration,
    /// What.
    pub fault: Fault,
    /// For how long.
    pub lasts: Duration,
}

/// The faults of a run of that length, recovery not counted. Each kind comes once before any comes twice, so a long run has met all.
#[must_use]
pub fn schedule(seed: u64, length: Duration) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut steps, mut left, mut spent) = (Vec::new(), Vec::new(), Duration::ZERO);
    loop {
        if left.is_empty() {
            left = ALL.to_vec();
        }
        let Some(fault) = left.choose(&mut random).copied() else { return steps };
        left.retain(|other| *other != fault);
        let after = Duration::from_millis(random.random_range(QUIET));
        let lasts = Duration::from_millis(random.random_range(LASTS));
        spent += after + lasts;
        if spent > length {
            return steps;
        }
        steps.push(Step { after, fault, lasts });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{ALL, Fault, schedule};

    proptest! {
        #[test]
        fn a_seed_is_a_run(seed: u64, seconds in 0_u64..600) {
            let length = Duration::from_secs(seconds);
            let steps = schedule(seed, length);
            prop_assert_eq!(&steps, &schedule(seed, length));
            // A longer run of the same seed begins alike.
            prop_assert_eq!(&steps[..], &schedule(seed, length * 2)[..steps.len()]);
            let spent: Duration = steps.iter().map(|step| step.after + step.lasts).sum();
            prop_assert!(spent <= length);
            for round in steps.chunks(ALL.len()) {
                let kinds: BTreeSet<Fault> = round.iter().map(|step| step.fault).collect();
                prop_assert_eq!(kinds.len(), round.len());
            }
        }

        #[test]
        fn another_seed_is_another_run(one: u64, other: u64) {
            let length = Duration::from_secs(120);
            prop_assert!(one == other || schedule(one, length) != schedule(other, length));
        }
    }
}
