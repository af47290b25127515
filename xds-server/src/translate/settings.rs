//! What all resources of one mesh have in common.

use std::sync::Arc;

use weft_model::ServiceKey;
use weft_model::workload::{DEFAULT_CLUSTER, DEFAULT_TRUST_DOMAIN};

/// Names of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// The cluster's id, the first part of every uid.
    pub cluster: Arc<str>,
    /// The trust domain of all identities.
    pub trust_domain: Arc<str>,
    /// The network of all addresses; empty is the default one.
    pub network: Arc<str>,
    /// The domain that host names of services end in.
    pub cluster_domain: Arc<str>,
}

impl Default for MeshSettings {
    /// What Kubernetes and Istio use where nobody says otherwise.
    fn default() -> Self {
        Self {
            cluster: DEFAULT_CLUSTER.into(),
            trust_domain: DEFAULT_TRUST_DOMAIN.into(),
            network: "".into(),
            cluster_domain: "cluster.local".into(),
        }
    }
}

impl MeshSettings {
    /// The key of a Kubernetes service: `NAMESPACE/NAME.NAMESPACE.svc.DOMAIN`.
    #[must_use]
    pub fn service_key(&self, namespace: &str, name: &str) -> ServiceKey {
        ServiceKey::new(namespace, &format!("{name}.{namespace}.svc.{}", self.cluster_domain))
    }
}
