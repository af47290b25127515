//! One pod as the capture half wants to have it: the input of the roster.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The Kubernetes uid of a pod (or whatever the source of pods uses to tell one life of a pod from the next).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// The uid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PodUid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for PodUid {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A pod of this node and whether it belongs to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// Which life of which pod.
    pub uid: PodUid,
    /// Name within the namespace.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account: with the namespace, the pod's identity.
    pub service_account: String,
    /// The pod's addresses. Its network namespace must own at least one of them.
    pub addresses: Vec<IpAddr>,
    /// Network namespace: a name under `/run/netns` or an absolute path. `None`: not known (yet).
    pub netns: Option<String>,
    /// Strict mTLS: enrolling resets plaintext connections that are already there.
    pub strict: bool,
    /// Whether the pod is to be captured at all.
    pub enrolled: bool,
    /// The ports that its containers name for the kubelet's probes and hooks.
    pub probe_ports: BTreeSet<u16>,
}
