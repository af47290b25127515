//! `weft uninstall`: pods leave the mesh first, while somebody is there to let them go; then everything goes, the last things first.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;
use weft_kubernetes::Cluster;
use weft_model::enrolment::MESH_LABEL;

use super::connect::with;
use super::enroll::settled;
use super::look::look;
use super::manifests;
use super::options::UninstallOptions;
use super::pods::{Membership, rows};
use crate::progress::{Done, Progress};

/// Pods of the agent.
const AGENTS: &str = "app=weft-node-agent";

const LOOK: Duration = Duration::from_millis(500);

/// Uninstalls.
///
/// # Errors
/// Namespaces are enrolled and may not be taken out, or something is still there in the end.
pub fn run(options: &UninstallOptions) -> anyhow::Result<ExitCode> {
    let objects = manifests::base()?;
    let progress = Progress::begin(options.output);
    progress.end(with(&options.cluster, |cluster| async move {
        let end = progress.begun() + options.timeout;
        leave(&cluster, options.unenroll, (progress, end)).await?;
        remove_plugin(&cluster, &objects, end).await?;
        if options.prepare {
            let message = "No pod is in the mesh, and the CNI plugin is off all nodes: the objects may go.".to_owned();
            return Ok(Done { outcome: "prepared", message });
        }
        progress.step("prepared", "all nodes", "the CNI plugin is off all nodes")?;
        for object in objects.iter().rev() {
            cluster.delete(object).await?;
        }
        for object in objects.iter().rev() {
            gone(&cluster, object, end).await?;
        }
        Ok(Done { outcome: "uninstalled", message: "Weft is uninstalled.".to_owned() })
    }))
}

/// An agent that goes before its pods have left the mesh would leave them closed.
async fn leave(cluster: &Cluster, may: bool, (progress, end): (Progress, Instant)) -> anyhow::Result<()> {
    let selector = format!("{MESH_LABEL}=enabled");
    let names: Vec<String> = cluster.list("Namespace", &selector).await?.iter().map(name).collect();
    if !names.is_empty() && !may {
        bail!("in the mesh: {}; `weft unenroll NAMESPACE`, or --unenroll for all of them", names.join(", "));
    }
    for namespace in &names {
        cluster.label_namespace(namespace, MESH_LABEL, None).await?;
    }
    for namespace in &names {
        settled(cluster, namespace, false, end).await?;
        progress.step("left", namespace, &format!("namespace {namespace}: out of the mesh"))?;
    }
    let mut left = rows(cluster).await?;
    left.retain(|row| row.mesh == Membership::Captured);
    if let Some(row) = left.first() {
        bail!("pod {}/{} is labelled {selector} itself; remove the label first", row.namespace, row.name);
    }
    Ok(())
}

/// A plugin that stays behind would let no pod start any more. The agents go first: they would put it back.
async fn remove_plugin(cluster: &Cluster, objects: &[Value], end: Instant) -> anyhow::Result<()> {
    let Some(agents) = objects.iter().find(|object| object["kind"] == "DaemonSet") else { return Ok(()) };
    let remover = match cluster.read(agents).await? {
        Some(live) => {
            let remover = manifests::plugin_remover(&live)?;
            cluster.delete(agents).await?;
            while !cluster.list("Pod", AGENTS).await?.is_empty() {
                if Instant::now() > end {
                    bail!("pods of weft-node-agent do not end; `kubectl -n weft-system get pods` shows them");
                }
                tokio::time::sleep(LOOK).await;
            }
            cluster.apply(&remover).await?;
            remover
        }
        // An earlier uninstall came this far, or further.
        None => manifests::plugin_remover(agents)?,
    };
    while let Some(live) = cluster.read(&remover).await? {
        let Some(what) = look(cluster, &live).await? else { break };
        if Instant::now() > end {
            bail!(
                "the CNI plugin is not off all nodes ({what}), and pods there will not start: see `kubectl -n weft-system get pods`, or run `weft-node-agent cni-install --remove` on the node"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    cluster.delete(&remover).await?;
    gone(cluster, &remover, end).await
}

async fn gone(cluster: &Cluster, object: &Value, end: Instant) -> anyhow::Result<()> {
    while cluster.read(object).await?.is_some() {
        if Instant::now() > end {
            bail!(
                "{} {} is still there; `kubectl describe` says what it waits for",
                object["kind"],
                object["metadata"]["name"]
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
