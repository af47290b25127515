//! The capture half of one node: the real roster over pods whose rules are in [`crate::kernel`]. What it has in hand is
//! lost when it is killed; the rules are not.
//!
//! The order of phases is that of `capture::join` (`capture.md` section 7), a step at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_node_agent::capture::ruleset::Phase;
use weft_node_agent::pods::roster::{Action, Present, ReleasePatience, Stage, plan};
use weft_node_agent::pods::{PodSpec, PodUid};

use crate::agent::Handover;
use crate::kernel::Kernel;
use crate::truth::PODS;

/// What one turn of a pod stands for: `--settle`.
const TURN: Duration = Duration::from_secs(2);

/// A running capture half.
#[derive(Debug, Default)]
pub struct Capture {
    /// The version of the source that it has read.
    pub version: Option<usize>,
    hands: BTreeMap<PodUid, Hand>,
}

#[derive(Debug, Clone)]
struct Hand {
    pod: usize,
    spec: PodSpec,
    stage: HandStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandStage {
    Clean,
    Captured,
    Releasing { turns: u32 },
}

impl Capture {
    /// Does what the roster says of the pods as they are `wanted`. `proxied`: a proxy is connected, and relays nothing.
    pub fn follow(&mut self, wanted: &[PodSpec], kernels: &mut [Kernel], proxied: bool) -> Vec<Handover> {
        let present = self.hands.iter().map(|(uid, hand)| (uid.clone(), hand.present(proxied))).collect();
        let mut words = Vec::new();
        for action in plan(wanted, &present, ReleasePatience::default()) {
            self.act(action, kernels, &mut words);
        }
        words
    }

    fn act(&mut self, action: Action, kernels: &mut [Kernel], words: &mut Vec<Handover>) {
        match action {
            Action::Start(spec) | Action::Restart(spec) | Action::Change(spec) => {
                let Some(pod) = index(&spec.uid) else { return };
                join(&mut kernels[pod], spec.strict);
                self.hands.insert(spec.uid.clone(), Hand { pod, spec, stage: HandStage::Captured });
                words.push(Handover::Pod(pod));
            }
            Action::Clean(spec) => {
                let Some(pod) = index(&spec.uid) else { return };
                kernels[pod].remove();
                self.hands.insert(spec.uid.clone(), Hand { pod, spec, stage: HandStage::Clean });
            }
            Action::BeginRelease(uid) => {
                if let Some(hand) = self.hands.get_mut(&uid) {
                    kernels[hand.pod].install(Phase::ReleaseIn);
                    hand.stage = HandStage::Releasing { turns: 0 };
                    hand.spec.enrolled = false;
                    words.push(Handover::Release(hand.pod));
                }
            }
            Action::FinishRelease(uid) => {
                if let Some(hand) = self.hands.get_mut(&uid) {
                    kernels[hand.pod].remove();
                    hand.stage = HandStage::Clean;
                    words.push(Handover::Remove(hand.pod));
                }
            }
            Action::Wait(_) => {}
            Action::Forget(uid) => {
                if let Some(hand) = self.hands.remove(&uid) {
                    words.push(Handover::Remove(hand.pod));
                }
            }
        }
    }

    /// Time passes for one pod: its next phase, or an audit.
    pub fn turn(&mut self, pod: usize, kernel: &mut Kernel) {
        let Some(hand) = self.hands.values_mut().find(|hand| hand.pod == pod) else { return };
        match (hand.stage, kernel.phase) {
            (HandStage::Captured, Some(Phase::EnrolOut)) => kernel.install(Phase::Enrol),
            (HandStage::Captured, Some(Phase::Enrol)) => kernel.install(Phase::Steady),
            (HandStage::Releasing { turns }, Some(Phase::ReleaseIn)) => {
                kernel.install(Phase::Release);
                hand.stage = HandStage::Releasing { turns: turns + 1 };
            }
            (HandStage::Releasing { turns }, _) => hand.stage = HandStage::Releasing { turns: turns + 1 },
            (_, Some(phase)) if !kernel.is_whole() => kernel.install(phase),
            _ => {}
        }
    }

    /// What a proxy that has just connected is told.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Handover> {
        let mut words = Vec::new();
        for hand in self.hands.values() {
            match hand.stage {
                HandStage::Clean => {}
                HandStage::Captured => words.push(Handover::Pod(hand.pod)),
                HandStage::Releasing { .. } => {
                    words.extend([Handover::Pod(hand.pod), Handover::Release(hand.pod)]);
                }
            }
        }
        words.push(Handover::SnapshotEnd);
        words
    }
}

impl Hand {
    fn present(&self, proxied: bool) -> Present {
        let stage = match self.stage {
            HandStage::Clean => Stage::Clean,
            HandStage::Captured => Stage::Captured,
            HandStage::Releasing { turns } => Stage::Releasing { relaying: proxied.then_some(0), age: TURN * turns },
        };
        Present { spec: self.spec.clone(), stage }
    }
}

/// The first step of joining, from what stands.
fn join(kernel: &mut Kernel, strict: bool) {
    let standing = kernel.phase.filter(|_| kernel.is_whole());
    let damaged = kernel.phase.is_some() && standing.is_none();
    let next = match standing {
        _ if strict || damaged => Phase::Steady,
        Some(Phase::ReleaseIn | Phase::Release | Phase::Steady) => Phase::Steady,
        Some(Phase::Enrol) => Phase::Enrol,
        None | Some(Phase::EnrolOut) => Phase::EnrolOut,
    };
    kernel.install(next);
}

fn index(uid: &PodUid) -> Option<usize> {
    PODS.iter().position(|pod| pod.name == uid.as_str())
}
