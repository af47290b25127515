//! How much one pod, one peer and all together may hold of an agent, and who is shed when it gets short. Pure.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | live connections of one pod and direction | `connections_per_pod`; twice as many for calls **to** it, so that one caller alone cannot fill it | shed, `pod-connection-limit` |
//! | connections of one pod and direction in their set-up | [`SETUPS_PER_POD`] | its listener waits for [`PATIENCE`], then `setup-limit` |
//! | of these, from one peer address (15006, 15008) | [`PLAINTEXT_PER_PEER`], [`HANDSHAKES_PER_PEER`] | shed, `peer-handshake-limit` |
//! | descriptors, memory of the agent: getting short | three quarters | pods above their fair share are shed, `descriptor-limit`, `memory-limit` |
//! | descriptors, memory of the agent: none left | seven eighths; the budget | everybody is |
//!
//! The kernel gives the lowest free number to a new descriptor, so the number of the socket that was just accepted says how
//! many are in use at least: nothing has to be counted.

use std::time::Duration;

use weft_model::Reason;
use weft_runtime::budget::Budget;

use super::descriptors::Descriptors;
use super::pod_load::{PodLoad, Way};

/// Connections that one pod may have in their set-up, per direction. 2,048: a burst of 20,000 a second whose every set-up takes
/// 100 ms; who dials silence (10 s each) gets 200 a second.
pub const SETUPS_PER_POD: u64 = 2_048;
/// Connections of one address to one pod that are in their set-up: half of what the pod has, so that one caller
/// leaves room for the others.
pub const PLAINTEXT_PER_PEER: u64 = SETUPS_PER_POD / 2;
/// Handshakes of one address with one pod. A peer agent dials a tunnel for each 100 streams of each of its workers:
/// 64 are 6,400 connections in one moment.
pub const HANDSHAKES_PER_PEER: u64 = 64;
/// Handshakes with one pod: eight peers at their limit. Each costs half a millisecond of work and some 20 KiB.
pub const HANDSHAKES_PER_POD: u64 = 8 * HANDSHAKES_PER_PEER;
/// How long a listener waits for set-ups of its pod to end, before it sheds. 1 s: as long as a client's first repetition of a SYN.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// What one connection is charged: its task (2.2 KiB), its entry and record (about 1 KiB), and two sockets in the
/// kernel (4.3 KiB each, `docs/performance.md`). What it buffers is charged apart.
pub const CONNECTION_BYTES: usize = 12 << 10;

/// The numbers in force.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Live connections of one pod that go out; of those that come in, twice as many.
    pub connections_per_pod: u64,
    /// Descriptors that this process may have.
    pub descriptors: Descriptors,
    /// Bytes of all connections together.
    pub budget: Budget,
}

impl Default for Limits {
    /// What a machine gives that says nothing: for tests. Programs use [`Limits::of`].
    fn default() -> Self {
        Self::of(DESCRIPTORS_EXPECTED, None, Budget::unlimited())
    }
}

/// The usual hard limit of a container runtime.
const DESCRIPTORS_EXPECTED: u64 = 1 << 20;

/// Eighths of the descriptors that one pod may have by default. Five: less than the three quarters at which it gets short, so
/// that one pod alone never gets there with tunnels (one descriptor a connection).
const POD_EIGHTHS: u64 = 5;
/// Connections of one pod by default, however many descriptors there are. With buffers at rest these are some 400 MB.
const CONNECTIONS_ENOUGH: u64 = 32_768;

impl Limits {
    /// For a process that may have this many descriptors; `connections_per_pod` where somebody says so.
    #[must_use]
    pub fn of(descriptors: u64, connections_per_pod: Option<u64>, budget: Budget) -> Self {
        let share = (descriptors / 8 * POD_EIGHTHS).min(CONNECTIONS_ENOUGH);
        Self {
            connections_per_pod: connections_per_pod.unwrap_or(share).max(1),
            descriptors: Descriptors::new(descriptors),
            budget,
        }
    }

    /// Live connections of one pod and way at most.
    #[must_use]
    pub fn live(&self, way: Way) -> u64 {
        match way {
            Way::Outbound => self.connections_per_pod,
            Way::Inbound => self.connections_per_pod.saturating_mul(2),
            // Even a peer that puts only four streams into each has enough.
            Way::Tunnel => (self.connections_per_pod / 4).max(HANDSHAKES_PER_POD),
        }
    }

    /// What a pod may hold while something is short: a tenth of its limit, and no more than a sixteenth of the descriptors,
    /// however high somebody has set its limit. Ten such pods are as much as one greedy one.
    #[must_use]
    pub fn fair_share(&self) -> u64 {
        (self.connections_per_pod / 10).min(self.descriptors.known() / 16)
    }

    /// Descriptors that may be in use for connections, whoever's they are. The last eighth is for everything else: sockets
    /// that the capture half sends, the control plane, pages.
    #[must_use]
    pub fn descriptors_for_all(&self) -> u64 {
        self.descriptors.known() / 8 * 7
    }

    fn unfinished(way: Way) -> u64 {
        match way {
            Way::Outbound | Way::Inbound => SETUPS_PER_POD,
            Way::Tunnel => HANDSHAKES_PER_POD,
        }
    }

    fn of_one_peer(way: Way) -> u64 {
        match way {
            Way::Outbound => u64::MAX, // the pod itself
            Way::Inbound => PLAINTEXT_PER_PEER,
            Way::Tunnel => HANDSHAKES_PER_PEER,
        }
    }

    /// Decides for one accepted connection, before anything is done for it.
    #[must_use]
    pub fn judge(&self, newcomer: &Newcomer<'_>) -> Verdict {
        let (way, load) = (newcomer.way, newcomer.load);
        if load.live(way) >= self.live(way) {
            return Verdict::Shed(Reason::PodConnectionLimit);
        }
        if newcomer.of_its_peer >= Self::of_one_peer(way) {
            return Verdict::Shed(Reason::PeerHandshakeLimit);
        }
        // A tunnel is for whoever calls through it, and that may be somebody who has no connection here yet.
        let greedy = way != Way::Tunnel && load.total() >= self.fair_share();
        if let Some(reason) = self.short_of(newcomer.descriptor, greedy) {
            return Verdict::Shed(reason);
        }
        if load.unfinished(way) >= Self::unfinished(way) { Verdict::Wait } else { Verdict::Take }
    }

    /// Decides for one more stream or same-node connection to a pod, counted already.
    ///
    /// # Errors
    /// [`Reason::PodConnectionLimit`] or [`Reason::MemoryLimit`].
    pub fn judge_counted(&self, load: &PodLoad) -> Result<(), Reason> {
        if load.live(Way::Inbound) > self.live(Way::Inbound) {
            return Err(Reason::PodConnectionLimit);
        }
        let greedy = load.total() > self.fair_share();
        let full = !self.budget.fits(0) || (greedy && self.budget.is_tight());
        if full { Err(Reason::MemoryLimit) } else { Ok(()) }
    }

    fn short_of(&self, descriptor: u64, greedy: bool) -> Option<Reason> {
        let descriptors = if greedy { self.descriptors.known() / 4 * 3 } else { self.descriptors_for_all() };
        if descriptor >= descriptors {
            return Some(Reason::DescriptorLimit);
        }
        let full = !self.budget.fits(CONNECTION_BYTES) || (greedy && self.budget.is_tight());
        full.then_some(Reason::MemoryLimit)
    }
}

/// A connection that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer<'a> {
    /// How it came.
    pub way: Way,
    /// What its pod has already.
    pub load: &'a PodLoad,
    /// Connections of the same peer that are in their set-up here.
    pub of_its_peer: u64,
    /// The number of its descriptor.
    pub descriptor: u64,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Take,
    /// Its pod has enough in hand: serve it when that is less.
    Wait,
    /// Reset it.
    Shed(Reason),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use weft_model::Reason;
    use weft_runtime::budget::Budget;

    use super::super::pod_load::{Counted, PodLoad, Way};
    use super::{CONNECTION_BYTES, Limits, Newcomer, Verdict};

    fn entered(load: &Arc<PodLoad>, way: Way, live: u64, unfinished: u64) -> Vec<Counted> {
        (0..live).map(|_| load.enter(way)).chain((0..unfinished).map(|_| load.begin(way))).collect()
    }

    #[rstest]
    #[case::nothing(Way::Outbound, 0, 0, 0, 10, Verdict::Take)]
    #[case::last_that_fits(Way::Outbound, 99, 0, 0, 10, Verdict::Take)]
    #[case::one_too_many(Way::Outbound, 100, 0, 0, 10, Verdict::Shed(Reason::PodConnectionLimit))]
    #[case::more_may_come_in(Way::Inbound, 199, 0, 0, 10, Verdict::Take)]
    #[case::too_many_come_in(Way::Inbound, 200, 0, 0, 10, Verdict::Shed(Reason::PodConnectionLimit))]
    #[case::busy(Way::Outbound, 0, 2_048, 0, 10, Verdict::Wait)]
    #[case::busy_handshaking(Way::Tunnel, 0, 512, 0, 10, Verdict::Wait)]
    #[case::one_peers_handshakes(Way::Tunnel, 0, 0, 64, 10, Verdict::Shed(Reason::PeerHandshakeLimit))]
    #[case::one_peers_plaintext(Way::Inbound, 0, 0, 1_024, 10, Verdict::Shed(Reason::PeerHandshakeLimit))]
    #[case::a_pod_is_no_peer(Way::Outbound, 0, 0, 2_000, 10, Verdict::Take)]
    #[case::short_and_greedy(Way::Outbound, 10, 0, 0, 600, Verdict::Shed(Reason::DescriptorLimit))]
    #[case::short_and_another_caller(Way::Tunnel, 10, 0, 0, 600, Verdict::Take)]
    #[case::short_and_modest(Way::Outbound, 9, 0, 0, 600, Verdict::Take)]
    #[case::none_left(Way::Outbound, 0, 0, 0, 700, Verdict::Shed(Reason::DescriptorLimit))]
    fn who_is_taken(
        #[case] way: Way,
        #[case] live: u64,
        #[case] unfinished: u64,
        #[case] of_its_peer: u64,
        #[case] descriptor: u64,
        #[case] expected: Verdict,
    ) {
        let limits = Limits::of(800, Some(100), Budget::unlimited());
        let load = Arc::default();
        let _counted = entered(&load, way, live, unfinished);
        assert_eq!(limits.judge(&Newcomer { way, load: &load, of_its_peer, descriptor }), expected);
    }

    #[test]
    fn tight_memory_sheds_the_greedy_first() {
        let budget = Budget::new(100 * CONNECTION_BYTES);
        let limits = Limits::of(800, Some(100), budget.clone());
        let load = Arc::default();
        let judge =
            |load: &Arc<PodLoad>| limits.judge(&Newcomer { way: Way::Outbound, load, of_its_peer: 0, descriptor: 10 });
        let counted = entered(&load, Way::Outbound, 10, 0);
        assert_eq!(judge(&load), Verdict::Take);
        budget.take(90 * CONNECTION_BYTES);
        assert_eq!(judge(&load), Verdict::Shed(Reason::MemoryLimit));
        drop(counted);
        assert_eq!(judge(&load), Verdict::Take, "a modest pod has the last quarter");
        budget.take(10 * CONNECTION_BYTES);
        assert_eq!(judge(&load), Verdict::Shed(Reason::MemoryLimit), "until it is full");
        let streams = entered(&load, Way::Inbound, 11, 0);
        assert_eq!(limits.judge_counted(&load), Err(Reason::MemoryLimit));
        budget.release(100 * CONNECTION_BYTES);
        assert_eq!(limits.judge_counted(&load), Ok(()));
        drop(streams);
        let _streams = entered(&load, Way::Inbound, 201, 0);
        assert_eq!(limits.judge_counted(&load), Err(Reason::PodConnectionLimit));
    }

    #[rstest]
    #[case::a_container(1 << 20, None, 32_768)]
    #[case::a_small_limit(20_000, None, 12_500)]
    #[case::said(20_000, Some(7), 7)]
    #[case::never_none(0, Some(0), 1)]
    fn what_one_pod_may_have(#[case] descriptors: u64, #[case] said: Option<u64>, #[case] expected: u64) {
        assert_eq!(Limits::of(descriptors, said, Budget::unlimited()).connections_per_pod, expected);
    }

    #[rstest]
    #[case::of_its_limit(20_000, None, 1_250)]
    #[case::of_the_descriptors(1_024, Some(5_000), 64)]
    fn what_one_pod_may_have_while_it_is_short(
        #[case] descriptors: u64,
        #[case] said: Option<u64>,
        #[case] expected: u64,
    ) {
        assert_eq!(Limits::of(descriptors, said, Budget::unlimited()).fair_share(), expected);
    }

    #[test]
    fn counts_end_with_their_guards() {
        let load = Arc::<PodLoad>::default();
        let counted = entered(&load, Way::Outbound, 2, 1);
        let tunnel = load.enter(Way::Tunnel);
        assert_eq!((load.relaying(), load.total(), load.unfinished(Way::Outbound)), (2, 3, 1));
        drop((counted, tunnel));
        assert_eq!((load.relaying(), load.total(), load.unfinished(Way::Outbound)), (0, 0, 0));
    }
}
