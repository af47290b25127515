//! `weft pods -A`: who is in the mesh, from the labels and conditions that Kubernetes has.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;
use weft_kubernetes::Cluster;
use weft_manifest::{Kind, Live, objects::Pod};
use weft_model::enrolment::Enrolment;

use super::connect::with;
use super::options::ClusterOptions;
use crate::format::Format;
use crate::output::{self, Field, Tone};

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// Selected and captured.
    Captured,
    /// Selected and not captured (yet).
    Waiting,
    /// Captured, and not selected any more.
    Leaving,
    /// Not selected.
    Outside,
    /// Has ended.
    Ended,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Where it stands.
    pub mesh: Membership,
    /// Why it is selected, or not.
    pub why: String,
}

/// Prints the pods, all or those of a namespace.
///
/// # Errors
/// The API server.
pub fn run(options: &ClusterOptions, namespace: Option<&str>, format: Format) -> anyhow::Result<ExitCode> {
    with(options, |cluster| async move {
        let mut rows = rows(&cluster).await?;
        rows.retain(|row| namespace.is_none_or(|namespace| namespace == row.namespace));
        match format {
            Format::Json => output::json(&rows)?,
            Format::Table => {
                let header = ["namespace", "pod", "node", "mesh", "why"];
                output::table(&header, rows.iter().map(fields).collect(), "No pods.")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Every pod of the cluster.
pub(super) async fn rows(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    let mut objects = BTreeMap::new();
    for (kind, word) in [(Kind::Namespace, "Namespace"), (Kind::Pod, "Pod")] {
        objects.insert(kind, cluster.list(word, "").await?);
    }
    Ok(of(&objects))
}

/// The same rule of enrolment as everywhere else.
fn of(objects: &BTreeMap<Kind, Vec<Value>>) -> Vec<Row> {
    let mut live = Live::default();
    for (kind, values) in objects {
        for value in values {
            live.put(*kind, value);
        }
    }
    let outcome = live.outcome();
    let row = |pod: &std::sync::Arc<Pod>| {
        let enrolment = outcome.objects.enrolment(pod);
        Row {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            node: pod.node.clone(),
            mesh: membership(pod, enrolment.is_enrolled()),
            why: why(enrolment).to_owned(),
        }
    };
    outcome.objects.pods.values().map(row).collect()
}

fn membership(pod: &Pod, selected: bool) -> Membership {
    match (selected, pod.captured == Some(true)) {
        _ if pod.is_finished() => Membership::Ended,
        (true, true) => Membership::Captured,
        (true, false) => Membership::Waiting,
        (false, true) => Membership::Leaving,
        (false, false) => Membership::Outside,
    }
}

fn why(enrolment: Enrolment) -> &'static str {
    match enrolment {
        Enrolment::Enrolled => "",
        Enrolment::NotAsked => "neither namespace nor pod is labelled weft.dev/mesh=enabled",
        Enrolment::OptedOut => "the pod is labelled weft.dev/mesh=disabled",
        Enrolment::HostNetwork => "it shares its node's network",
        Enrolment::SystemNamespace => "a namespace that is never captured",
        Enrolment::Finished => "it has ended",
    }
}

fn fields(row: &Row) -> Vec<Field> {
    let mesh = match row.mesh {
        Membership::Captured => Field::toned("captured", Tone::Good),
        Membership::Waiting => Field::toned("NOT captured", Tone::Bad),
        Membership::Leaving => Field::toned("leaving", Tone::Warn),
        Membership::Outside => Field::from("-"),
        Membership::Ended => Field::from("ended"),
    };
    vec![(&*row.namespace).into(), (&*row.name).into(), (&*row.node).into(), mesh, (&*row.why).into()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use weft_manifest::Kind;

    use super::{Membership, of};

    #[test]
    fn where_pods_stand() {
        let pod = |name: &str, namespace: &str, captured: Option<&str>, phase: &str| {
            let conditions: Vec<_> =
                captured.into_iter().map(|status| json!({ "type": "weft.dev/captured", "status": status })).collect();
            json!({
                "metadata": { "name": name, "namespace": namespace }, "spec": { "nodeName": "n", "containers": [] },
                "status": { "phase": phase, "podIPs": [{ "ip": "10.0.0.1" }], "conditions": conditions },
            })
        };
        let objects = BTreeMap::from([
            (
                Kind::Namespace,
                vec![
                    json!({ "metadata": { "name": "shop", "labels": { "weft.dev/mesh": "enabled" } } }),
                    json!({ "metadata": { "name": "other" } }),
                ],
            ),
            (
                Kind::Pod,
                vec![
                    pod("a", "shop", Some("True"), "Running"),
                    pod("b", "shop", Some("False"), "Running"),
                    pod("c", "shop", None, "Succeeded"),
                    pod("d", "other", Some("True"), "Running"),
                    pod("e", "other", None, "Running"),
                ],
            ),
        ]);
        let found: Vec<(String, Membership)> = of(&objects).into_iter().map(|row| (row.name, row.mesh)).collect();
        let expected = [
            ("d", Membership::Leaving),
            ("e", Membership::Outside),
            ("a", Membership::Captured),
            ("b", Membership::Waiting),
            ("c", Membership::Ended),
        ];
        assert_eq!(found, expected.map(|(name, mesh)| (name.to_owned(), mesh)));
    }
}
