//! A node: its agent, whether that is in sync, the CNI plugin, its pods and certificates. Pure.

use weft_model::view::{ControlPlaneView, PodRow, SubscriberRow};

use super::certificates;
use super::finding::Finding;
use super::plane::{configs, first, server_versions};
use super::seen::{Agent, Node, Plugin, Seen};
use crate::cluster::pods::{Membership, Row};
use crate::programs::choose::{NAMESPACE, Program};

/// What is said of it.
#[must_use]
pub fn findings(node: &Node, seen: &Seen) -> Vec<Finding> {
    let place = format!("node {}", node.name);
    let Some(agent) = &node.agent else { return vec![without_agent(node, seen, &place)] };
    let mut findings = Vec::new();
    if !node.ready {
        findings.push(Finding::warning(&place, "Kubernetes says that it is not ready", kubectl_node(&node.name)));
    }
    findings.push(running(agent, &place));
    match &agent.config {
        Ok(config) => {
            findings.extend(version(&config.version, seen, &place));
            if let Some(plane) = &config.control_plane {
                findings.extend(synchronised(plane, &subscriptions(&node.name, seen), &place));
            }
        }
        Err(_) if seen.no_ports.is_some() => {}
        Err(words) => findings.push(unasked(agent, words, &place)),
    }
    findings.push(plugin(agent, &place));
    if let Ok(rows) = &agent.certificates {
        findings.extend(certificates::leaves(rows, seen.now, &place));
    }
    findings.push(captured(node, agent, seen, &place));
    findings
}

fn kubectl_node(node: &str) -> String {
    format!("kubectl describe node {node}")
}

fn without_agent(node: &Node, seen: &Seen, place: &str) -> Finding {
    let is_captured =
        |row: &&Row| row.node == node.name && matches!(row.mesh, Membership::Captured | Membership::Leaving);
    let held = match seen.pods.iter().filter(is_captured).count() {
        0 => String::new(),
        count => format!("; {count} captured there, which take and make no new connections"),
    };
    let name = &node.name;
    match (node.wanted, node.ready) {
        (false, _) if held.is_empty() => Finding::note(
            place,
            "no agent is wanted there (the DaemonSet's node selector): its pods cannot be in the mesh",
        ),
        (false, _) => Finding::error(
            place,
            format!("no agent is wanted there{held}"),
            format!("let the node selector of the DaemonSet take node {name}, or take its pods out of the mesh"),
        ),
        (true, false) => Finding::error(place, format!("is not ready, and runs no agent{held}"), kubectl_node(name)),
        (true, true) => Finding::error(
            place,
            format!("runs no agent: pods of the mesh do not start there{held}"),
            format!(
                "kubectl -n {NAMESPACE} get pods -o wide --field-selector spec.nodeName={name}; kubectl -n {NAMESPACE} get events"
            ),
        ),
    }
}

fn running(agent: &Agent, place: &str) -> Finding {
    let pod = &agent.program.pod;
    if agent.program.ready {
        let version = agent.config.as_ref().map_or_else(|_| String::new(), |config| format!(", {}", config.version));
        return Finding::ok(place, format!("agent {pod} is ready{version}"));
    }
    Finding::error(
        place,
        format!("agent {pod} is not ready"),
        format!(
            "kubectl -n {NAMESPACE} describe pod {pod}; kubectl -n {NAMESPACE} logs {pod} --all-containers --tail=20"
        ),
    )
}

fn unasked(agent: &Agent, words: &str, place: &str) -> Finding {
    let Program { pod, node, .. } = &agent.program;
    let fix = format!("kubectl describe node {node}; kubectl -n {NAMESPACE} logs {pod} -c proxy --tail=20");
    Finding::warning(place, format!("the agent could not be asked: {}", first(words)), fix)
}

fn version(version: &str, seen: &Seen, place: &str) -> Option<Finding> {
    let servers = server_versions(seen);
    if servers.is_empty() || servers.contains(version) {
        return None;
    }
    let list = servers.into_iter().collect::<Vec<_>>().join(", ");
    Some(Finding::warning(
        place,
        format!("the agent is {version}, the control plane {list}"),
        format!("weft upgrade; or wait for it: kubectl -n {NAMESPACE} rollout status daemonset/weft-node-agent"),
    ))
}

/// The streams of this node that the replicas know of.
fn subscriptions<'a>(node: &str, seen: &'a Seen) -> Vec<&'a SubscriberRow> {
    configs(seen).flat_map(|config| &config.subscribers).filter(|row| row.node == node).collect()
}

/// Whether what is wanted is in force: by the agent's word, and by that of the replica that it is connected to.
fn synchronised(plane: &ControlPlaneView, streams: &[&SubscriberRow], place: &str) -> Vec<Finding> {
    if !plane.connected {
        let why = plane.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        return vec![Finding::error(
            place,
            format!("not connected to the control plane at {}{why}; it goes on with what it holds", plane.address),
            format!(
                "see the control plane above; kubectl -n {NAMESPACE} logs -l app=weft-xds-server --tail=50 names tokens that are not taken"
            ),
        )];
    }
    let rejected = plane.types.iter().flat_map(|kind| &kind.rejected);
    let mut findings: Vec<Finding> = rejected
        .map(|one| {
            let fix = "mend the object; weft config --node shows all of them. An agent that is older than the control plane: weft upgrade";
            Finding::error(place, format!("the agent rejected {}: {}", one.name, one.error), fix)
        })
        .collect();
    let held = plane.types.iter().map(|kind| format!("{} {}", kind.name, kind.held)).collect::<Vec<_>>().join(", ");
    match streams.iter().any(|stream| stream.in_sync) {
        true => findings.push(Finding::ok(place, format!("in sync with the control plane ({held})"))),
        false if streams.is_empty() => {
            findings.push(Finding::note(place, format!("connected to a replica that could not be asked whether all is acknowledged ({held})")));
        }
        false => findings.push(Finding::warning(
            place,
            format!("has not acknowledged all that was sent to it ({held})"),
            "look again: weft check; a moment after a change that is usual. Else: weft config --node shows what is held",
        )),
    }
    findings
}

fn plugin(agent: &Agent, place: &str) -> Finding {
    match &agent.plugin {
        Plugin::Chained(path) => Finding::ok(place, format!("CNI plugin chained in {path}")),
        Plugin::Unwanted => {
            Finding::note(place, "no CNI plugin: new pods send in plaintext until they are captured, some 100 ms")
        }
        Plugin::Unknown(why) => Finding::note(place, format!("CNI plugin: unknown ({})", first(why))),
        Plugin::Missing(why) => Finding::error(
            place,
            format!("the CNI plugin is not in force: {why}"),
            format!("kubectl -n {NAMESPACE} logs {} -c cni; docs/operations.md, The CNI plugin", agent.program.pod),
        ),
    }
}

/// Wanted against running, in numbers; each pod that differs is a finding of its own.
fn captured(node: &Node, agent: &Agent, seen: &Seen, place: &str) -> Finding {
    let of = |mesh: Membership| seen.pods.iter().filter(move |row| row.node == node.name && row.mesh == mesh).count();
    let (captured, waiting, leaving) = (of(Membership::Captured), of(Membership::Waiting), of(Membership::Leaving));
    let serves = |rows: &Vec<PodRow>| rows.iter().filter(|row| row.captured_here == Some(true)).count();
    let says =
        agent.pods.as_ref().map_or_else(|_| String::new(), |rows| format!("; the agent serves {}", serves(rows)));
    let words = format!("{captured} of {} selected pods captured{says}", captured + waiting);
    match (waiting, leaving) {
        (0, 0) => Finding::ok(place, words),
        (0, _) => Finding::note(place, format!("{words}; {leaving} leaving")),
        _ => Finding::note(place, format!("{words}; the others are below")),
    }
}
