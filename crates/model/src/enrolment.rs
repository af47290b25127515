//! Which pods are in the mesh, and how strictly. One rule, used by the control plane (what it publishes) and by the
//! capture half (what it captures), so that the two cannot disagree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Opts a namespace in (`enabled`) or a pod out (`disabled`) or in (`enabled`).
pub const MESH_LABEL: &str = "weft.dev/mesh";
/// `strict` or `permissive`, on a pod, its namespace, or the mesh's own namespace (then for the whole mesh).
pub const MTLS_LABEL: &str = "weft.dev/mtls";
/// The namespace of Weft itself.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
/// Namespaces that are never captured: the cluster could not start without them.
pub const NEVER: [&str; 4] = ["kube-system", "kube-node-lease", "kube-public", SYSTEM_NAMESPACE];

/// What the rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The namespace's labels.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The pod's labels.
    pub pod_labels: &'a BTreeMap<String, String>,
    /// The pod shares the node's network.
    pub host_network: bool,
    /// The pod has ended (Succeeded or Failed).
    pub finished: bool,
}

/// Whether a pod is in the mesh, and why (not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Enrolment {
    /// In the mesh.
    Enrolled,
    /// Neither the namespace nor the pod asked for it.
    NotAsked,
    /// The pod opted out.
    OptedOut,
    /// The pod shares the node's network; capture would take the node's own traffic.
    HostNetwork,
    /// A namespace that is never captured.
    SystemNamespace,
    /// The pod has ended.
    Finished,
}

impl Enrolment {
    /// Whether it is in the mesh.
    #[must_use]
    pub fn is_enrolled(self) -> bool {
        self == Self::Enrolled
    }
}

/// The rule. A value of the label other than `enabled` or `disabled` counts as absent here; the reader of the object
/// reports it.
#[must_use]
pub fn enrolment(facts: Facts<'_>) -> Enrolment {
    let pod = facts.pod_labels.get(MESH_LABEL).map(String::as_str);
    let namespace = facts.namespace_labels.get(MESH_LABEL).map(String::as_str);
    let asked = match (pod, namespace) {
        (Some("disabled"), Some("enabled")) => return Enrolment::OptedOut,
        (Some("disabled"), _) => false,
        (Some("enabled"), _) | (_, Some("enabled")) => true,
        _ => false,
    };
    if !asked {
        Enrolment::NotAsked
    } else if NEVER.contains(&facts.namespace) {
        Enrolment::SystemNamespace
    } else if facts.host_network {
        Enrolment::HostNetwork
    } else if facts.finished {
        Enrolment::Finished
    } else {
        Enrolment::Enrolled
    }
}

/// Whether plaintext from outside the mesh is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum MtlsMode {
    /// Plaintext is accepted (while adopting the mesh).
    #[default]
    Permissive,
    /// Only mutual TLS.
    Strict,
}

/// The nearest label wins: pod, namespace, mesh.
#[must_use]
pub fn mtls_mode(pod: Option<&str>, namespace: Option<&str>, mesh: Option<&str>) -> MtlsMode {
    let said = [pod, namespace, mesh].into_iter().flatten().find_map(|value| match value {
        "strict" => Some(MtlsMode::Strict),
        "permissive" => Some(MtlsMode::Permissive),
        _ => None,
    });
    said.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::{Enrolment, Facts, MESH_LABEL, MtlsMode, enrolment, mtls_mode};

    fn labels(value: Option<&str>) -> BTreeMap<String, String> {
        value.map(|value| (MESH_LABEL.to_owned(), value.to_owned())).into_iter().collect()
    }

    #[rstest]
    #[case("shop", Some("enabled"), None, false, false, Enrolment::Enrolled)]
    #[case("shop", None, None, false, false, Enrolment::NotAsked)]
    #[case("shop", Some("yes"), None, false, false, Enrolment::NotAsked)]
    #[case("shop", None, Some("enabled"), false, false, Enrolment::Enrolled)]
    #[case("shop", Some("disabled"), Some("enabled"), false, false, Enrolment::Enrolled)]
    #[case("shop", Some("enabled"), Some("disabled"), false, false, Enrolment::OptedOut)]
    #[case("shop", None, Some("disabled"), false, false, Enrolment::NotAsked)]
    #[case("shop", Some("enabled"), None, true, false, Enrolment::HostNetwork)]
    #[case("shop", Some("enabled"), None, false, true, Enrolment::Finished)]
    #[case("kube-system", Some("enabled"), None, false, false, Enrolment::SystemNamespace)]
    #[case("weft-system", None, Some("enabled"), false, false, Enrolment::SystemNamespace)]
    fn who_is_in(
        #[case] namespace: &str,
        #[case] namespace_label: Option<&str>,
        #[case] pod_label: Option<&str>,
        #[case] host_network: bool,
        #[case] finished: bool,
        #[case] expected: Enrolment,
    ) {
        let (namespace_labels, pod_labels) = (labels(namespace_label), labels(pod_label));
        let facts =
            Facts { namespace, namespace_labels: &namespace_labels, pod_labels: &pod_labels, host_network, finished };
        assert_eq!(enrolment(facts), expected);
    }

    #[rstest]
    #[case(None, None, None, MtlsMode::Permissive)]
    #[case(None, None, Some("strict"), MtlsMode::Strict)]
    #[case(None, Some("permissive"), Some("strict"), MtlsMode::Permissive)]
    #[case(Some("strict"), Some("permissive"), None, MtlsMode::Strict)]
    #[case(Some("nonsense"), Some("strict"), None, MtlsMode::Strict)]
    fn how_strictly(
        #[case] pod: Option<&str>,
        #[case] namespace: Option<&str>,
        #[case] mesh: Option<&str>,
        #[case] expected: MtlsMode,
    ) {
        assert_eq!(mtls_mode(pod, namespace, mesh), expected);
    }
}
