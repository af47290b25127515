//! Which pods this agent serves now: written by the control thread, read by every worker.
//!
//! The workers need it for the short way between two pods of one node; the control thread for the number of connections
//! that it reports while a pod leaves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_model::SpiffeId;
use weft_model::spiffe::SpiffeError;
use weft_model::workload::{Uid, Workload};

use crate::handover::PodInfo;
use crate::node_info::NodeInfo;
use crate::pods::PodUid;

/// One pod that is captured and served.
#[derive(Debug, Clone)]
pub struct ServedPod {
    /// What the capture half says of it.
    pub info: Arc<PodInfo>,
    /// Who it is.
    pub identity: SpiffeId,
    /// It leaves the mesh: what is relayed goes on, nothing new takes the short way.
    pub leaving: bool,
    /// Connections that are relayed for it now, over all workers.
    pub relaying: Arc<AtomicU64>,
}

impl ServedPod {
    /// How many connections are relayed for it now.
    #[must_use]
    pub fn relaying(&self) -> u64 {
        self.relaying.load(Ordering::Relaxed)
    }
}

/// All pods that are served.
#[derive(Debug, Clone, Default)]
pub struct Served {
    pods: HashMap<PodUid, ServedPod>,
    by_workload: HashMap<Uid, PodUid>,
}

impl Served {
    /// With this pod, new or changed.
    ///
    /// # Errors
    /// Its names cannot be an identity.
    pub fn with(&self, node: &NodeInfo, info: Arc<PodInfo>) -> Result<Self, SpiffeError> {
        let identity = node.identity(&info)?;
        let mut next = self.clone();
        let relaying = next.pods.get(&info.uid).map_or_else(Arc::default, |pod| pod.relaying.clone());
        next.by_workload.insert(node.workload_uid(&info), info.uid.clone());
        next.pods.insert(info.uid.clone(), ServedPod { info, identity, leaving: false, relaying });
        Ok(next)
    }

    /// With this pod about to leave.
    #[must_use]
    pub fn leaving(&self, uid: &PodUid) -> Self {
        let mut next = self.clone();
        if let Some(pod) = next.pods.get_mut(uid) {
            pod.leaving = true;
        }
        next
    }

    /// Without this pod.
    #[must_use]
    pub fn without(&self, uid: &PodUid) -> Self {
        let mut next = self.clone();
        next.pods.remove(uid);
        next.by_workload.retain(|_, owner| owner != uid);
        next
    }

    /// The pod with this uid.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&ServedPod> {
        self.pods.get(uid)
    }

    /// All pods, in no particular order.
    pub fn pods(&self) -> impl Iterator<Item = &ServedPod> {
        self.pods.values()
    }

    /// The pod behind a workload's address, if connections can be delivered to it here and now. Namespace and name are not
    /// enough: the mesh may still speak of the pod's former life, elsewhere or under another account.
    #[must_use]
    pub fn serving(&self, workload: &Workload, address: IpAddr) -> Option<&ServedPod> {
        let pod = self.pods.get(self.by_workload.get(&workload.uid)?)?;
        let same = *pod.info.service_account == *workload.service_account && pod.info.addresses.contains(&address);
        (same && !pod.leaving).then_some(pod)
    }
}
