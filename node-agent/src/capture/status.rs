//! What the capture half shows of itself: one JSON value, kept up to date by its loop.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use super::{mark::CapturePorts, program::Backend};
use crate::{
    handover::message::Condition,
    pods::{PodUid, Uncaptured, UncapturedReason},
};

/// Where a pod stands, for people and probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Being captured.
    #[default]
    Starting,
    /// Selected, but it is not known where it is.
    Waiting,
    /// New connections are captured, old ones still go on in plain.
    Enrolling,
    /// Everything is captured.
    Captured,
    /// Leaving: new connections go direct.
    Releasing,
    /// Not captured as wanted, and in plaintext or not proven to be whole; tried again.
    Failed,
    /// Cannot be captured: nothing goes in or out; tried again.
    Closed,
    /// Not in the mesh, no rule of ours.
    Clean,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodStatus {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Network namespace as given.
    pub netns: Option<String>,
    /// Where it stands.
    pub state: PodState,
    /// Ports of its listeners.
    pub ports: Option<CapturePorts>,
    /// How many workers have listeners.
    pub workers: usize,
    /// What went wrong last; none when all is well.
    pub error: Option<String>,
    /// Selected, and not captured: why, as metrics say it.
    pub uncaptured: Option<UncapturedReason>,
    /// Failures in a row.
    pub failures: u32,
    /// How often the auditor repaired something.
    pub repairs: u64,
    /// What it repaired last.
    pub repaired: Option<String>,
    /// What a proxy said when it could not serve the pod.
    pub refusal: Option<String>,
    /// Old plaintext connections that still go on.
    pub old_connections: usize,
}

/// The whole capture half.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaptureStatus {
    /// Node.
    pub node: String,
    /// Which programs change the packet filter.
    pub backend: Option<Backend>,
    /// How many proxies are connected.
    pub proxies: usize,
    /// Workers of the newest.
    pub workers: Option<usize>,
    /// Repairs of all pods, those that are gone included.
    pub repairs: u64,
    /// Every pod that was looked at.
    pub pods: BTreeMap<PodUid, PodStatus>,
}

impl CaptureStatus {
    /// What proxies are told of it, to be shown by their metrics and pages.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let uncaptured = self.pods.iter().filter_map(|(uid, pod)| {
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            let closed = pod.state == PodState::Closed;
            pod.uncaptured.map(|reason| Uncaptured { uid: uid.clone(), namespace, name, reason, closed })
        });
        Condition::new(uncaptured, self.repairs)
    }
}

/// Shared with whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle(Arc<Mutex<CaptureStatus>>);

impl StatusHandle {
    /// A copy of everything.
    #[must_use]
    pub fn get(&self) -> CaptureStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy of one pod.
    pub(super) fn get_pod(&self, uid: &PodUid) -> Option<PodStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pods.get(uid).cloned()
    }

    /// As the admin section shows it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.get()).unwrap_or_default()
    }

    /// Changes something.
    pub(super) fn change(&self, change: impl FnOnce(&mut CaptureStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes something of one pod, if it is known.
    pub(super) fn change_pod(&self, uid: &PodUid, change: impl FnOnce(&mut PodStatus)) {
        self.change(|status| {
            if let Some(pod) = status.pods.get_mut(uid) {
                change(pod);
            }
        });
    }
}
