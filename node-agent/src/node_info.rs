//! Where this agent runs, in the words that pods' uids and identities are made of.

use std::sync::Arc;

use weft_model::SpiffeId;
use weft_model::spiffe::SpiffeError;
use weft_model::workload::Uid;

use crate::handover::PodInfo;

/// Where this agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's name, as the control plane knows it.
    pub name: Arc<str>,
    /// The node's network; empty is the default one.
    pub network: Arc<str>,
    /// The cluster: the first part of its pods' uids.
    pub cluster: Arc<str>,
    /// The mesh's trust domain: the first part of its pods' identities.
    pub trust_domain: Arc<str>,
}

impl NodeInfo {
    /// The mesh-wide name of a pod of this node.
    #[must_use]
    pub fn workload_uid(&self, pod: &PodInfo) -> Uid {
        Uid::of_pod(&self.cluster, &pod.namespace, &pod.name)
    }

    /// The identity of a pod of this node: what its certificate says, and what its same-node connections prove.
    ///
    /// # Errors
    /// A name that cannot be part of an identity.
    pub fn identity(&self, pod: &PodInfo) -> Result<SpiffeId, SpiffeError> {
        SpiffeId::new(&self.trust_domain, &pod.namespace, &pod.service_account)
    }
}
