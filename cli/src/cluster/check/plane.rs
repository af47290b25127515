//! The control plane: what is installed, its replicas, who leads, which versions, what it finds wrong. Pure.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::view::ConfigView;

use super::finding::Finding;
use super::pre::TRIED;
use super::seen::{Installed, Leader, Seen};
use crate::programs::choose::{NAMESPACE, Program};

const PLANE: &str = "control plane";
const CLUSTER: &str = "cluster";
/// A Lease that was not renewed for this long, in seconds, has no holder: the replicas' own longest life of one.
const LEASE_OVER: u64 = 60;

/// What is said of it.
#[must_use]
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = rights(seen);
    findings.push(cluster(seen));
    findings.extend(installed(seen));
    findings.extend(replicas(seen));
    findings.extend(leader(seen));
    findings.extend(versions(seen));
    findings.extend(objects(seen));
    findings
}

/// Whether Weft is there at all, if this user may know.
#[must_use]
pub fn is_installed(seen: &Seen) -> bool {
    let is_absent = |what: &str| seen.installed.absent.iter().any(|absent| absent.starts_with(what));
    !(is_absent("Deployment ") && is_absent("DaemonSet "))
}

/// What is said where it is not.
#[must_use]
pub fn not_installed(seen: &Seen) -> Vec<Finding> {
    let Installed { count, absent, .. } = &seen.installed;
    let words = format!("Weft is not installed: {} of its {count} objects are not there", absent.len());
    vec![cluster(seen), Finding::error(CLUSTER, words, "weft check --pre, then weft install")]
}

/// What this user may not look at.
fn rights(seen: &Seen) -> Vec<Finding> {
    let place = "your rights";
    let mut findings = Vec::new();
    if !seen.forbidden.is_empty() {
        findings.push(Finding::note(place, format!("you may not look at: {}", seen.forbidden.join(", "))));
    }
    if let Some(words) = &seen.no_ports {
        let fix = format!("ask for the verbs get and create of pods/portforward in {NAMESPACE}");
        findings.push(Finding::warning(place, format!("agents and control plane were not asked: {words}"), fix));
    }
    findings
}

/// Kubernetes' version, and the modes of kube-proxy.
fn cluster(seen: &Seen) -> Finding {
    let mut modes: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &seen.nodes {
        *modes.entry(node.proxy.as_deref().unwrap_or("unknown")).or_default() += 1;
    }
    let words: Vec<String> = modes.iter().map(|(mode, count)| format!("{mode} ({count})")).collect();
    let found = format!("Kubernetes {}; kube-proxy on nodes: {}", seen.kubernetes, words.join(", "));
    if modes.contains_key("ipvs") {
        return Finding::warning(CLUSTER, format!("{found}; Weft was not tried with ipvs"), TRIED);
    }
    Finding::ok(CLUSTER, found)
}

fn installed(seen: &Seen) -> Vec<Finding> {
    let installed = &seen.installed;
    let absent = installed.absent.iter().map(|what| {
        Finding::error(
            PLANE,
            format!("{what} is not there"),
            "weft install (or the way in which Weft was installed) puts it there",
        )
    });
    let unfinished = installed.unfinished.iter().map(|(what, missing)| {
        let look = format!("kubectl -n {NAMESPACE} get pods -o wide; kubectl -n {NAMESPACE} get events");
        Finding::error(PLANE, format!("{what}: {missing}"), look)
    });
    let mut findings: Vec<Finding> = absent.chain(unfinished).collect();
    if findings.is_empty() && seen.forbidden.is_empty() {
        findings.push(Finding::ok(PLANE, format!("all {} objects are there, and rolled out", installed.count)));
    }
    findings
}

fn replicas(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (program, config) in &seen.servers {
        let Program { pod, node, .. } = program;
        let look = format!("kubectl -n {NAMESPACE} logs {pod} --tail=20");
        findings.push(match config {
            _ if !program.ready => Finding::error(PLANE, format!("replica {pod} on node {node} is not ready"), look),
            Ok(config) => {
                let agents = match config.subscribers.len() {
                    1 => "1 agent".to_owned(),
                    count => format!("{count} agents"),
                };
                Finding::ok(PLANE, format!("replica {pod} on node {node}: {}, serves {agents}", config.version))
            }
            Err(_) if seen.no_ports.is_some() => Finding::ok(PLANE, format!("replica {pod} on node {node} is ready")),
            Err(words) => Finding::warning(PLANE, format!("replica {pod} could not be asked: {}", first(words)), look),
        });
    }
    if seen.servers.is_empty() {
        let look = format!("kubectl -n {NAMESPACE} describe deployment weft-xds-server");
        findings.push(Finding::error(
            PLANE,
            "no replica of weft-xds-server runs: agents go on with what they hold",
            look,
        ));
    }
    findings
}

fn leader(seen: &Seen) -> Option<Finding> {
    // `POD_UID`, or `POD_` and something else that is unique.
    let is_holder = |holder: &str, pod: &str| holder.strip_prefix(pod).is_some_and(|rest| rest.starts_with('_'));
    let lost = |words: String| {
        let look = format!("kubectl -n {NAMESPACE} get lease weft-xds-server -o yaml; the logs of weft-xds-server");
        Finding::warning(PLANE, format!("{words}: conditions, Events and rotations of the root wait"), look)
    };
    match &seen.leader {
        Leader::Holds(holder, age) if *age > LEASE_OVER => {
            Some(lost(format!("{holder} led, and has not said so for {age} s")))
        }
        Leader::Holds(holder, _) => match seen.servers.iter().find(|(program, _)| is_holder(holder, &program.pod)) {
            Some((program, _)) => Some(Finding::ok(PLANE, format!("{} leads", program.pod))),
            None => Some(lost(format!("'{holder}' holds the Lease, and is none of the replicas"))),
        },
        Leader::Nobody => Some(lost("no replica leads".to_owned())),
        Leader::Unknown => None,
    }
}

/// This program and the replicas. Agents are compared with the replicas, each at its node.
fn versions(seen: &Seen) -> Option<Finding> {
    let found = server_versions(seen);
    let list = found.iter().copied().collect::<Vec<_>>().join(", ");
    match found.len() {
        0 => None,
        1 if found.contains(&*seen.version) => None,
        1 => Some(Finding::warning(
            PLANE,
            format!("this weft is {}, the control plane {list}", seen.version),
            format!("weft upgrade brings the cluster to {}, or use weft {list}", seen.version),
        )),
        _ => Some(Finding::warning(
            PLANE,
            format!("replicas of several versions: {list}"),
            format!("wait for the upgrade: kubectl -n {NAMESPACE} rollout status deployment/weft-xds-server"),
        )),
    }
}

/// The versions of the replicas that could be asked.
pub(super) fn server_versions(seen: &Seen) -> BTreeSet<&str> {
    configs(seen).map(|config| &*config.version).collect()
}

/// What the replicas that could be asked said.
pub(super) fn configs(seen: &Seen) -> impl Iterator<Item = &ConfigView> {
    seen.servers.iter().filter_map(|(_, config)| config.as_ref().ok())
}

/// Policies, labels and the like that the control plane cannot take; all replicas say the same.
fn objects(seen: &Seen) -> Vec<Finding> {
    let words = |finding: &weft_model::view::Finding| {
        let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
        (finding.object.clone(), format!("{field}{}", finding.message))
    };
    let unique: BTreeSet<(String, String)> =
        configs(seen).flat_map(|config| config.findings.iter().map(words)).collect();
    let fix = "mend the object; until then its last good version is in force (docs/resources.md)";
    unique.into_iter().map(|(object, words)| Finding::warning(&object, words, fix)).collect()
}

/// The first line: what follows is said by the finding itself.
pub(super) fn first(words: &str) -> &str {
    words.lines().next().unwrap_or_default()
}
