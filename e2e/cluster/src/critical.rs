//! Pods of the critical priorities are only where a quota counts them, as on GKE: what is installed in a cluster must bring its own. Pure.

use serde_json::{Value, json};

/// What the API server's admission limits, and a quota lets in.
fn scope() -> Value {
    let priorities = ["system-cluster-critical", "system-node-critical"];
    json!({ "scopeName": "PriorityClass", "operator": "In", "values": priorities })
}

/// The API server's file of admission (kubernetes.io/docs/concepts/policy/resource-quotas, "Limit Priority Class consumption by default").
#[must_use]
pub fn admission() -> Value {
    let version = "apiserver.config.k8s.io/v1";
    json!({ "apiVersion": version, "kind": "AdmissionConfiguration", "plugins": [{ "name": "ResourceQuota", "configuration": {
        "apiVersion": version, "kind": "ResourceQuotaConfiguration",
        "limitedResources": [{ "resource": "pods", "matchScopes": [scope()] }],
    } }] })
}

/// Lets such pods into a namespace, as many as there are.
#[must_use]
pub fn quota(namespace: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "critical-pods", "namespace": namespace },
        "spec": { "hard": { "pods": "1M" }, "scopeSelector": { "matchExpressions": [scope()] } } })
}
