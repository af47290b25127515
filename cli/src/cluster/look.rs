//! Asks the API server for what [`super::rollout`] judges.

use serde_json::Value;
use weft_kubernetes::Cluster;

use super::rollout::missing;

/// What is missing of a Deployment or DaemonSet as it was read; `None`: nothing.
///
/// # Errors
/// The API server does not list its pods.
pub(super) async fn look(cluster: &Cluster, object: &Value) -> anyhow::Result<Option<String>> {
    let pods = if object["kind"] == "DaemonSet" { cluster.list("Pod", &selector(object)).await? } else { Vec::new() };
    Ok(missing(object, &pods))
}

/// The labels of its pods.
fn selector(object: &Value) -> String {
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}
