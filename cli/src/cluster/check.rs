//! `weft check`: what is wrong in a cluster, each with what to do. With `--pre`, before anything is installed.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;
use weft_kubernetes::Cluster;

use super::connect::with;
use super::look::look;
use super::manifests;
use super::options::CheckOptions;
use super::pods::{Membership, Row, rows};
use crate::format::Format;
use crate::output::{self, Field, Tone};

/// What the definition of AuthorizationPolicy says of ranges (`isCIDR`) is understood since then; admission by policy is there since
/// 1.30, bound tokens say their node since 1.29.
const KUBERNETES: (u32, u32) = (1, 31);
/// The oldest kernel with long-term support by its makers; TPROXY, nf_tables and sock_diag are far older.
const KERNEL: (u32, u32) = (5, 4);
/// What installing does, in verbs.
const RIGHTS: [(&str, &str, &str); 7] = [
    ("create", "", "namespaces"),
    ("create", "apps", "daemonsets"),
    ("create", "apps", "deployments"),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("create", "rbac.authorization.k8s.io", "clusterroles"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    good: bool,
    /// What was found; where it is wrong, and what to do.
    says: String,
}

/// Looks.
///
/// # Errors
/// The API server cannot be asked.
pub fn run(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let findings = with(&options.cluster, |cluster| async move {
        if options.pre { before(&cluster).await } else { installed(&cluster).await }
    })?;
    match options.output {
        Format::Json => output::json(&findings)?,
        Format::Table => {
            output::table(&["", "what", "found"], findings.iter().map(row).collect(), "Nothing to look at.")?;
        }
    }
    Ok(if findings.iter().all(|finding| finding.good) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn before(cluster: &Cluster) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![version(&cluster.version().await?)];
    findings.extend(cluster.list("Node", "").await?.iter().map(node));
    for (verb, group, resource) in RIGHTS {
        let good = cluster.may(verb, group, resource).await?;
        let says = if good { "allowed".to_owned() } else { "not allowed; ask for cluster-admin to install".to_owned() };
        findings.push(Finding { what: format!("right to {verb} {resource}"), good, says });
    }
    findings.extend(cluster.list("NetworkPolicy", "").await?.iter().filter_map(network_policy));
    Ok(findings)
}

async fn installed(cluster: &Cluster) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for object in manifests::known()? {
        let what = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        let Some(now) = cluster.read(&object).await? else {
            findings.push(Finding { what, good: false, says: "is not there; run `weft install`".to_owned() });
            continue;
        };
        if object["kind"] == "Deployment" || object["kind"] == "DaemonSet" {
            let (good, says) = match look(cluster, &now).await? {
                None => (true, image(&now)),
                Some(what) => (false, format!("{what}; see `kubectl -n weft-system get pods`")),
            };
            findings.push(Finding { what, good, says });
        }
    }
    findings.extend(membership(&rows(cluster).await?));
    Ok(findings)
}

/// Selected pods that are not captured, each; the others as a number.
fn membership(rows: &[Row]) -> Vec<Finding> {
    let count = rows.iter().filter(|row| row.mesh == Membership::Captured).count();
    let mut findings = vec![Finding { what: "pods in the mesh".to_owned(), good: true, says: count.to_string() }];
    findings.extend(rows.iter().filter(|row| row.mesh == Membership::Waiting).map(|row| Finding {
        what: format!("pod {}/{}", row.namespace, row.name),
        good: false,
        says: format!("selected but not captured on node {}; see the log of its agent's container `capture`", row.node),
    }));
    findings
}

fn version(found: &str) -> Finding {
    let good = numbers(found).is_some_and(|found| found >= KUBERNETES);
    let (major, minor) = KUBERNETES;
    let says = if good { found.to_owned() } else { format!("{found}; expected {major}.{minor} or newer") };
    Finding { what: "Kubernetes".to_owned(), good, says }
}

fn node(node: &Value) -> Finding {
    let info = &node["status"]["nodeInfo"];
    let (kernel, system) = (text(&info["kernelVersion"]), text(&info["operatingSystem"]));
    let good = system == "linux" && numbers(kernel).is_some_and(|found| found >= KERNEL);
    let (major, minor) = KERNEL;
    let found = format!("{system} {kernel}, {}", text(&info["containerRuntimeVersion"]));
    let says =
        if good { found } else { format!("{found}; expected linux {major}.{minor} or newer, no agent will run there") };
    Finding { what: format!("node {}", text(&node["metadata"]["name"])), good, says }
}

/// One that names ports for what comes in or goes out, without that of tunnels. A direction without any rule lets nothing pass with or
/// without a mesh: others that let something pass beside it are looked at by themselves.
fn network_policy(policy: &Value) -> Option<Finding> {
    let shut = |direction: &str| {
        let rules = policy["spec"][direction].as_array();
        rules.is_some_and(|rules| !rules.is_empty() && !rules.iter().any(lets_tunnels_pass))
    };
    let directions = match (shut("ingress"), shut("egress")) {
        (false, false) => return None,
        (true, false) => "pods in the mesh could not be reached",
        (false, true) => "pods in the mesh could not call others on other nodes",
        (true, true) => "pods in the mesh could neither be reached nor call others on other nodes",
    };
    let metadata = &policy["metadata"];
    let what = format!("NetworkPolicy {}/{}", text(&metadata["namespace"]), text(&metadata["name"]));
    let says = format!("names ports without 15008: {directions}; add port 15008, and let policies of Weft decide");
    Some(Finding { what, good: false, says })
}

fn lets_tunnels_pass(rule: &Value) -> bool {
    rule["ports"].as_array().is_none_or(|ports| ports.iter().any(|port| port["port"].is_null() || covers(port)))
}

fn covers(port: &Value) -> bool {
    let first = port["port"].as_u64().unwrap_or_default();
    (first..=port["endPort"].as_u64().unwrap_or(first)).contains(&15008)
}

/// Major and minor of `v1.34.4`, `5.10.0-8-amd64`, `1.29+`.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split('.');
    let number = |part: &str| part.trim_end_matches(|letter: char| !letter.is_ascii_digit()).parse().ok();
    Some((number(parts.next()?)?, number(parts.next()?)?))
}

fn image(object: &Value) -> String {
    format!("ready, {}", text(&object["spec"]["template"]["spec"]["containers"][0]["image"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn row(finding: &Finding) -> Vec<Field> {
    let mark = if finding.good { Field::toned("ok", Tone::Good) } else { Field::toned("WRONG", Tone::Bad) };
    vec![mark, (&*finding.what).into(), (&*finding.says).into()]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{network_policy, node, numbers, version};

    #[rstest]
    #[case("v1.34.4", Some((1, 34)))]
    #[case("6.18.44", Some((6, 18)))]
    #[case("5.10.0-8-amd64", Some((5, 10)))]
    #[case("v1.29+", Some((1, 29)))]
    #[case("new", None)]
    fn versions(#[case] text: &str, #[case] expected: Option<(u32, u32)>) {
        assert_eq!(numbers(text), expected);
    }

    #[test]
    fn what_is_too_old_is_said_with_what_was_expected() {
        assert!(version("v1.34.4").good);
        assert!(!version("v1.30.9").good && version("v1.30.9").says.contains("1.31 or newer"));
        let of = |system: &str, kernel: &str| {
            node(&json!({
                "metadata": { "name": "n" }, "status": { "nodeInfo": { "operatingSystem": system, "kernelVersion": kernel } },
            }))
        };
        assert!(of("linux", "6.1.0").good);
        assert!(!of("windows", "10.0.1").good && !of("linux", "4.19.0").good);
    }

    #[rstest]
    #[case(json!({}), true)]
    #[case(json!({ "ingress": [] }), true)]
    #[case(json!({ "ingress": [{}] }), true)]
    #[case(json!({ "ingress": [{}], "egress": [{ "ports": [{ "protocol": "UDP", "port": 53 }] }] }), false)]
    #[case(json!({ "egress": [{ "ports": [{ "port": 53 }] }, { "ports": [{ "port": 15008 }] }] }), true)]
    #[case(json!({ "ingress": [{ "ports": [{ "port": 8080 }] }] }), false)]
    #[case(json!({ "ingress": [{ "ports": [{ "port": 8080 }, { "port": 15008 }] }] }), true)]
    #[case(json!({ "ingress": [{ "ports": [{ "port": 15000, "endPort": 16000 }] }] }), true)]
    #[case(json!({ "ingress": [{ "ports": [{ "port": "http" }] }] }), false)]
    fn policies_that_would_keep_tunnels_out(#[case] spec: Value, #[case] good: bool) {
        assert_eq!(network_policy(&json!({ "metadata": { "name": "a" }, "spec": spec })).is_none(), good);
    }
}
