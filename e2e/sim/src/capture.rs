//! The capture half of one node: the real roster and the real course of joining and leaving, over pods whose rules are in
//! [`crate::kernel`]. What it has in hand is lost when it is killed; the rules are not.
//!
//! One hand does what `capture::pod` does: an act is begun, its commits follow one by one with anything in between, and what
//! came of it is told when the last one is in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use weft_node_agent::capture::course::{Act, Entry, InHand, Standing, entry, leaves};
use weft_node_agent::capture::ruleset::Phase;
use weft_node_agent::pods::roster::{Action, Present, ReleasePatience, Stage, plan};
use weft_node_agent::pods::{PodSpec, PodUid};

use crate::agent::Handover;
use crate::kernel::{Commit, Kernel};
use crate::plant::Plant;
use crate::truth::PODS;

/// What one turn of a pod stands for: `--settle`.
const TURN: Duration = Duration::from_secs(2);
/// After this time, a pod that leaves waits for no proxy, as `capture::steward` has it.
const NO_PROXY: Duration = Duration::from_secs(5);
/// Failures in a row after which a permissive pod is closed, as `capture::pod` has it.
const PATIENCE: u32 = 2;

/// What a turn of a pod meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outside {
    /// The kernel refuses the commit.
    pub fails: bool,
    /// Connections from before the capture still live.
    pub old: bool,
}

/// A running capture half.
#[derive(Debug, Default)]
pub struct Capture {
    /// The version of the source that it has read.
    pub version: Option<usize>,
    /// The one that it has acted on.
    acted: Option<usize>,
    hands: BTreeMap<PodUid, Hand>,
    /// Pods of the first list of which nothing is known yet; none before the first list.
    expected: Option<BTreeSet<PodUid>>,
    plant: Option<Plant>,
}

#[derive(Debug, Clone)]
struct Hand {
    pod: usize,
    spec: PodSpec,
    stage: Stage,
    goal: Goal,
    /// Rules of this phase were put in by this life, and whether the mesh has had time to hear.
    held: Option<(Phase, bool)>,
    failures: u32,
    act: Option<Under>,
    told: Option<Told>,
}

/// An act under way.
#[derive(Debug, Clone)]
struct Under {
    commits: VecDeque<Commit>,
    then: Then,
    /// It is a repair of a pod that is open for want of everything: its first commit is to close it.
    closes: bool,
}

impl Under {
    fn new(commits: Vec<Commit>, then: Then) -> Self {
        Self { commits: commits.into(), then, closes: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Captured(Phase),
    Opened(Phase),
    Left(Phase),
    Cleaned,
    Closed,
    Mended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Captured,
    Releasing,
    Examined,
    Clean,
}

/// What proxies were told of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Serve,
    Release,
}

impl Capture {
    /// Just started.
    #[must_use]
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// Does what the roster says of the pods as they are `wanted`. `proxied`: a proxy is connected, and relays nothing.
    pub fn follow(&mut self, wanted: &[PodSpec], proxied: bool) -> Vec<Handover> {
        self.acted = self.version;
        let mut wanted = wanted.to_vec();
        if self.expected.is_none() && self.plant == Some(Plant::ActsBeforeItReads) {
            wanted.iter_mut().for_each(|spec| spec.enrolled = false);
        }
        let named = wanted.iter().filter(|spec| spec.netns.is_some()).map(|spec| spec.uid.clone());
        self.expected.get_or_insert_with(|| named.collect());
        let present = self.hands.iter().map(|(uid, hand)| (uid.clone(), hand.present(proxied))).collect();
        let actions = plan(&wanted, &present, ReleasePatience::default());
        actions.into_iter().filter_map(|action| self.act(action)).collect()
    }

    fn act(&mut self, action: Action) -> Option<Handover> {
        match action {
            Action::Start(spec) | Action::Restart(spec) | Action::Change(spec) => {
                self.order(spec, Goal::Captured, Stage::Captured);
            }
            Action::Clean(spec) => self.order(spec, Goal::Examined, Stage::Clean),
            Action::BeginRelease(uid) => {
                let hand = self.hands.get_mut(&uid)?;
                hand.spec.enrolled = false;
                hand.goal = Goal::Releasing;
                hand.stage = Stage::Releasing { left: None, relaying: None, age: Duration::ZERO };
            }
            Action::FinishRelease(uid) => {
                let hand = self.hands.get_mut(&uid)?;
                (hand.goal, hand.stage) = (Goal::Clean, Stage::Clean);
            }
            Action::Wait(_) => {}
            Action::Forget(uid) => return self.hands.remove(&uid).map(|hand| Handover::Remove(hand.pod)),
        }
        None
    }

    fn order(&mut self, spec: PodSpec, goal: Goal, stage: Stage) {
        let Some(pod) = PODS.iter().position(|pod| pod.name == spec.uid.as_str()) else { return };
        let new = || Hand { pod, spec: spec.clone(), stage, goal, held: None, failures: 0, act: None, told: None };
        let hand = self.hands.entry(spec.uid.clone()).or_insert_with(new);
        (hand.spec, hand.goal, hand.stage) = (spec, goal, stage);
    }

    /// One commit of one pod, or its next act.
    pub fn turn(&mut self, pod: usize, kernel: &mut Kernel, outside: Outside) -> Vec<Handover> {
        let Some(hand) = self.hands.values_mut().find(|hand| hand.pod == pod) else { return Vec::new() };
        let words = hand.turn(kernel, outside, self.plant);
        let leaving = hand.held.is_some_and(|(phase, _)| leaves(phase));
        let none = hand.act.is_none() && hand.held.is_none();
        let known = hand.told.is_some() || hand.failures > 0 || leaving || none;
        if let Some(expected) = self.expected.as_mut().filter(|_| known) {
            expected.remove(&hand.spec.uid);
        }
        words
    }

    /// The version by which it keeps a pod captured, with no act under way that opens it.
    #[must_use]
    pub fn keeps(&self, pod: usize) -> Option<usize> {
        let opens = |hand: &Hand| {
            hand.act.as_ref().is_some_and(|act| matches!(act.then, Then::Opened(_) | Then::Left(_) | Then::Cleaned))
        };
        let mut hands = self.hands.values().filter(|hand| hand.pod == pod);
        self.acted.filter(|_| hands.any(|hand| hand.goal == Goal::Captured && !opens(hand)))
    }

    /// Whether it has the pod's rules in its care.
    #[must_use]
    pub fn holds(&self, pod: usize) -> bool {
        self.hands.values().any(|hand| hand.pod == pod && hand.held.is_some())
    }

    /// Whether a proxy that connects can be told all pods: those of the first list are in hand, or it is known why not.
    #[must_use]
    pub fn knows_its_pods(&self) -> bool {
        self.expected.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// What a proxy that has just connected is told.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Handover> {
        let mut words = Vec::new();
        for hand in self.hands.values() {
            words.extend(hand.told.map(|_| Handover::Pod(hand.pod)));
            words.extend((hand.told == Some(Told::Release)).then_some(Handover::Release(hand.pod)));
        }
        words.push(Handover::SnapshotEnd);
        words
    }
}

impl Hand {
    fn present(&self, proxied: bool) -> Present {
        let stage = match self.stage {
            Stage::Releasing { age, .. } => {
                let left = self.held.is_none_or(|(phase, _)| matches!(phase, Phase::Release(_)));
                let relaying = (proxied || age >= NO_PROXY).then_some(0);
                Stage::Releasing { left: left.then_some(age), relaying, age }
            }
            stage => stage,
        };
        Present { spec: self.spec.clone(), stage }
    }

    fn turn(&mut self, kernel: &mut Kernel, outside: Outside, plant: Option<Plant>) -> Vec<Handover> {
        if let Stage::Releasing { age, .. } = &mut self.stage {
            *age += TURN;
        }
        let Some(act) = &mut self.act else {
            let words = self.attempt(kernel, outside, plant);
            // Whatever follows comes a turn later, which is time enough for the mesh to hear.
            self.held.iter_mut().filter(|_| self.act.is_none()).for_each(|(_, settled)| *settled = true);
            return words;
        };
        if outside.fails {
            self.failed(kernel);
            return Vec::new();
        }
        if let Some(commit) = act.commits.pop_front() {
            kernel.commit(commit);
            if std::mem::take(&mut act.closes) {
                kernel.repair_begun();
            }
        }
        if !act.commits.is_empty() {
            return Vec::new();
        }
        let then = act.then;
        self.act = None;
        self.done(then, outside.old, kernel)
    }

    /// The next act towards the goal.
    fn attempt(&mut self, kernel: &Kernel, outside: Outside, plant: Option<Plant>) -> Vec<Handover> {
        let in_hand = self.held.map(|(phase, settled)| InHand {
            phase,
            settled,
            strict: self.spec.strict,
            failed: self.failures > 0,
        });
        match (self.goal, in_hand) {
            (Goal::Captured, None) => {
                let blind = plant == Some(Plant::OverlooksTheGuard);
                let standing = if blind { kernel.stands(false) } else { kernel.standing() };
                self.join(standing, kernel, plant);
            }
            (Goal::Captured, Some(now)) => match now.joining() {
                Act::Join => self.join(Some(Standing::Whole(now.phase)), kernel, plant),
                Act::Close => {
                    let phase = Phase::Enrol(now.phase.older());
                    self.begin(kernel, phase, Then::Captured(phase), plant);
                }
                Act::WaitForOld if !outside.old => {
                    self.begin(kernel, Phase::Steady, Then::Captured(Phase::Steady), plant);
                }
                _ => {
                    self.audit(kernel, now.phase, plant);
                    return self.offer();
                }
            },
            (Goal::Releasing, None) => return self.release(),
            (Goal::Releasing, Some(now)) => match now.leaving() {
                Act::Open => {
                    let phase = Phase::ReleaseIn(now.phase.older());
                    self.begin(kernel, phase, Then::Opened(phase), plant);
                }
                Act::Leave => {
                    let phase = Phase::Release(now.phase.older());
                    self.begin(kernel, phase, Then::Left(phase), plant);
                }
                _ => self.audit(kernel, now.phase, plant),
            },
            (Goal::Examined, None) => return self.examine(kernel),
            (Goal::Examined | Goal::Clean, _) => self.clean(kernel),
        }
        Vec::new()
    }

    fn join(&mut self, standing: Option<Standing>, kernel: &Kernel, plant: Option<Plant>) {
        let entry = match entry::<Infallible>(self.spec.strict, standing, || Ok(!kernel.called)) {
            Ok(entry) => entry,
            Err(never) => match never {},
        };
        let phase = match entry {
            Entry::Reset | Entry::Keep => Phase::Steady,
            Entry::Close(older) => Phase::Enrol(older),
            Entry::Announce(older) => Phase::EnrolOut(older),
        };
        self.begin(kernel, phase, Then::Captured(phase), plant);
    }

    fn begin(&mut self, kernel: &Kernel, phase: Phase, then: Then, plant: Option<Plant>) {
        let mut commits = kernel.commits(phase);
        match plant {
            Some(Plant::ReplacesInTwoActs) => _ = commits.splice(0..0, kernel.removal()),
            Some(Plant::ForgetsTheGuard) => commits.retain(|commit| !matches!(commit, Commit::Guard(_))),
            _ => {}
        }
        self.act = Some(Under::new(commits, then));
    }

    fn clean(&mut self, kernel: &Kernel) {
        self.act = Some(Under::new(kernel.removal(), Then::Cleaned));
    }

    fn audit(&mut self, kernel: &Kernel, phase: Phase, plant: Option<Plant>) {
        match plant {
            _ if kernel.is_whole(phase) => {}
            Some(Plant::NeverAudits) => {}
            Some(Plant::MendsRoutesOnly) => self.act = Some(Under::new(vec![Commit::Route], Then::Mended)),
            Some(Plant::ReplacesInTwoActs | Plant::ForgetsTheGuard | Plant::MendsTheGuardLast) => {
                self.begin(kernel, phase, Then::Mended, plant);
            }
            _ => self.act = Some(Under::new(kernel.repairs(phase), Then::Mended)),
        }
        self.act.iter_mut().for_each(|act| act.closes = kernel.is_exposed());
    }

    /// Found captured, and not selected: it leaves in order.
    fn examine(&mut self, kernel: &Kernel) -> Vec<Handover> {
        if !kernel.is_touched() {
            return Vec::new();
        }
        let Some(Standing::Whole(phase)) = kernel.standing() else {
            self.clean(kernel);
            return Vec::new();
        };
        self.held = Some((phase, true));
        self.goal = Goal::Releasing;
        self.stage = Stage::Releasing { left: None, relaying: None, age: Duration::ZERO };
        self.told = Some(Told::Serve);
        let mut words = vec![Handover::Pod(self.pod)];
        if leaves(phase) {
            words.extend(self.release());
        }
        words
    }

    /// A captured pod is reported after every attempt; told on if it is still to be captured, and news.
    fn offer(&mut self) -> Vec<Handover> {
        if self.stage != Stage::Captured || self.told == Some(Told::Serve) {
            return Vec::new();
        }
        self.told = Some(Told::Serve);
        vec![Handover::Pod(self.pod)]
    }

    fn release(&mut self) -> Vec<Handover> {
        match self.told {
            Some(Told::Serve) => {
                self.told = Some(Told::Release);
                vec![Handover::Release(self.pod)]
            }
            _ => Vec::new(),
        }
    }

    fn failed(&mut self, kernel: &Kernel) {
        self.failures += 1;
        let closes = self.spec.strict || self.failures >= PATIENCE;
        self.act = (self.goal == Goal::Captured && self.held.is_none() && closes)
            .then(|| Under::new(kernel.closing(), Then::Closed));
    }

    /// The last commit of an act is in.
    fn done(&mut self, then: Then, old: bool, kernel: &Kernel) -> Vec<Handover> {
        if then != Then::Closed {
            self.failures = 0;
        }
        match then {
            Then::Captured(phase) => {
                self.held = Some((phase, false));
                if matches!(phase, Phase::Enrol(_)) && !old {
                    let commits = kernel.commits(Phase::Steady);
                    self.act = Some(Under::new(commits, Then::Captured(Phase::Steady)));
                }
                return self.offer();
            }
            Then::Opened(phase) => {
                self.held = Some((phase, false));
                return self.release();
            }
            Then::Left(phase) => self.held = Some((phase, true)),
            Then::Cleaned => {
                self.held = None;
                if self.stage == Stage::Clean {
                    (self.goal, self.told) = (Goal::Examined, None);
                    return vec![Handover::Remove(self.pod)];
                }
            }
            Then::Closed | Then::Mended => {}
        }
        Vec::new()
    }
}
