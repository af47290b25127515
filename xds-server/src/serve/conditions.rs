//! Which pods the nodes capture, kept where everybody can see it: as the condition `weft.dev/captured` of each pod.
//!
//! So Kubernetes is the only store, all replicas know the same, and `kubectl wait --for=condition=weft.dev/captured` works. The agents
//! themselves may not write it: a node's word goes through here, where it counts for the pods of that node only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_kubernetes::{CapturedWriter, Mark};
use weft_manifest::Outcome;
use weft_manifest::objects::Pod;
use weft_model::Uid;
use weft_runtime::shared::Reader;

use super::report::{Keep, NotKept};

/// How long a report may be ahead of our own watch.
const LATE: Duration = Duration::from_secs(2);

/// Writes the reports of nodes to their pods.
#[derive(Debug)]
pub struct Conditions {
    writer: CapturedWriter,
    outcomes: Reader<Option<Arc<Outcome>>>,
    cluster: Arc<str>,
}

impl Conditions {
    /// `cluster` is the first part of every pod's uid.
    #[must_use]
    pub fn new(writer: CapturedWriter, outcomes: Reader<Option<Arc<Outcome>>>, cluster: Arc<str>) -> Self {
        Self { writer, outcomes, cluster }
    }

    /// The pods that say that they are captured.
    #[must_use]
    pub fn captured(outcome: &Outcome, cluster: &str) -> BTreeSet<Uid> {
        let captured = |pod: &&Arc<Pod>| pod.captured == Some(true) && !pod.is_finished() && !pod.addresses.is_empty();
        outcome.objects.pods.values().filter(captured).map(|pod| uid(pod, cluster)).collect()
    }
}

fn uid(pod: &Pod, cluster: &str) -> Uid {
    Uid::of_pod(cluster, &pod.metadata.namespace, &pod.metadata.name)
}

fn knows(outcome: &Outcome, cluster: &str, uids: &BTreeSet<Uid>) -> bool {
    let mut missing = uids.clone();
    for pod in outcome.objects.pods.values() {
        missing.remove(&uid(pod, cluster));
    }
    missing.is_empty()
}

/// What has to be written for a report of `node`: only what is not so already.
fn marks(outcome: &Outcome, node: &str, cluster: &str, uids: &BTreeSet<Uid>) -> Vec<Mark> {
    let mark = |pod: &Arc<Pod>| {
        let captured = uids.contains(&uid(pod, cluster));
        // A pod that never was in the mesh needs no word that it is not.
        let differs = if captured { pod.captured != Some(true) } else { pod.captured == Some(true) };
        differs.then(|| Mark {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            captured,
        })
    };
    outcome.objects.pods_of_node(node).filter(|pod| !pod.is_finished()).filter_map(mark).collect()
}

#[tonic::async_trait]
impl Keep for Conditions {
    async fn keep(&self, node: &Arc<str>, uids: BTreeSet<Uid>) -> Result<usize, NotKept> {
        // The node has heard of its pods from the same API server, perhaps a moment earlier.
        let mut outcomes = self.outcomes.clone();
        let known =
            outcomes.wait_until(|outcome| outcome.as_ref().is_some_and(|outcome| knows(outcome, &self.cluster, &uids)));
        // A pod that is gone again is never known; the others count.
        let _late = tokio::time::timeout(LATE, known).await;
        let outcome = self.outcomes.load();
        let outcome = outcome.as_ref().as_ref().ok_or(NotKept)?;
        let mut kept = true;
        for mark in marks(outcome, node, &self.cluster, &uids) {
            if let Err(error) = self.writer.write(&mark).await {
                tracing::error!(%error, pod = mark.name, namespace = mark.namespace, "a report cannot be kept");
                kept = false;
            }
        }
        if kept { Ok(self.count()) } else { Err(NotKept) }
    }

    fn count(&self) -> usize {
        let outcome = self.outcomes.load();
        outcome.as_ref().as_ref().map_or(0, |outcome| Self::captured(outcome, &self.cluster).len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_manifest::{Kind, Live};

    use super::*;

    fn outcome() -> Outcome {
        let mut live = Live::default();
        for (name, node, captured, phase) in [
            ("new", "node1", None, "Running"),
            ("known", "node1", Some("True"), "Running"),
            ("leaves", "node1", Some("True"), "Running"),
            ("outside", "node1", None, "Running"),
            ("ended", "node1", Some("True"), "Succeeded"),
            ("elsewhere", "node2", Some("True"), "Running"),
        ] {
            let conditions: Vec<_> =
                captured.into_iter().map(|status| json!({ "type": "weft.dev/captured", "status": status })).collect();
            live.put(
                Kind::Pod,
                &json!({
                    "metadata": { "name": name, "namespace": "shop", "uid": name },
                    "spec": { "nodeName": node, "containers": [] },
                    "status": { "phase": phase, "podIPs": [{ "ip": "10.0.0.1" }], "conditions": conditions },
                }),
            );
        }
        live.outcome()
    }

    #[test]
    fn a_report_becomes_the_conditions_that_differ_of_that_node_alone() {
        let uids = ["new", "known", "elsewhere"].map(|name| Uid::of_pod("c", "shop", name)).into();
        let marks = marks(&outcome(), "node1", "c", &uids);
        let said: Vec<(&str, bool)> = marks.iter().map(|mark| (&*mark.name, mark.captured)).collect();
        assert_eq!(said, [("leaves", false), ("new", true)]);
    }

    #[test]
    fn what_is_captured_is_read_from_the_pods_that_run() {
        let names = ["elsewhere", "known", "leaves"].map(|name| Uid::of_pod("c", "shop", name));
        assert_eq!(Conditions::captured(&outcome(), "c"), names.into());
    }
}
