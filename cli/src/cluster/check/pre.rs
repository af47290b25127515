//! `weft check --pre`: whether a cluster can hold Weft, before anything is installed.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_kubernetes::Cluster;

use super::cni;
use super::finding::Finding;
use super::proxy::modes;
use crate::cluster::object::text;

/// What the definition of AuthorizationPolicy says of ranges (`isCIDR`) is understood since then; admission by policy is there since
/// 1.30, bound tokens say their node since 1.29.
const KUBERNETES: (u32, u32) = (1, 31);
/// The oldest kernel with long-term support by its makers; TPROXY, nf_tables and sock_diag are far older.
const KERNEL: (u32, u32) = (5, 4);
/// What to do where kube-proxy runs in another mode.
pub(super) const TRIED: &str = "iptables and nftables are the modes that Weft's tests run with (docs/kubernetes.md)";
/// What installing does, in verbs.
const RIGHTS: [(&str, &str, &str); 8] = [
    ("create", "", "namespaces"),
    ("create", "", "resourcequotas"),
    ("create", "apps", "daemonsets"),
    ("create", "apps", "deployments"),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("create", "rbac.authorization.k8s.io", "clusterroles"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
];

/// Looks.
///
/// # Errors
/// The API server cannot be asked.
pub(super) async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![version(&cluster.version().await?)];
    let nodes = cluster.list("Node", "").await?;
    findings.extend(nodes.iter().map(node));
    let names: Vec<String> = nodes.iter().map(|node| text(&node["metadata"]["name"]).to_owned()).collect();
    findings.extend(kube_proxy(&modes(cluster, &names).await));
    findings.extend(cni::findings(&cni::gather(cluster).await, &nodes));
    for (verb, group, resource) in RIGHTS {
        let place = format!("right to {verb} {resource}");
        findings.push(match cluster.may(verb, group, resource).await? {
            true => Finding::ok(&place, "allowed"),
            false => Finding::error(&place, "not allowed", "ask for cluster-admin to install"),
        });
    }
    findings.extend(cluster.list("NetworkPolicy", "").await?.iter().filter_map(network_policy));
    Ok(findings)
}

fn version(found: &str) -> Finding {
    let (major, minor) = KUBERNETES;
    match numbers(found).is_some_and(|found| found >= KUBERNETES) {
        true => Finding::ok("Kubernetes", found),
        false => Finding::error("Kubernetes", found, format!("expected {major}.{minor} or newer")),
    }
}

fn node(node: &Value) -> Finding {
    let info = &node["status"]["nodeInfo"];
    let (kernel, system) = (text(&info["kernelVersion"]), text(&info["operatingSystem"]));
    let place = format!("node {}", text(&node["metadata"]["name"]));
    let found = format!("{system} {kernel}, {}", text(&info["containerRuntimeVersion"]));
    let (major, minor) = KERNEL;
    match system == "linux" && numbers(kernel).is_some_and(|found| found >= KERNEL) {
        true => Finding::ok(&place, found),
        false => {
            Finding::error(&place, found, format!("expected linux {major}.{minor} or newer, no agent will run there"))
        }
    }
}

/// Each mode that is there.
fn kube_proxy(modes: &[Option<String>]) -> Vec<Finding> {
    let unique: BTreeSet<&str> = modes.iter().map(|mode| mode.as_deref().unwrap_or("unknown")).collect();
    let finding = |mode: &str| match mode {
        "ipvs" => Finding::warning("kube-proxy", "ipvs: Weft was not tried with it", TRIED),
        "unknown" => {
            Finding::note("kube-proxy", "its mode cannot be read from outside, or something else does its work")
        }
        mode => Finding::ok("kube-proxy", mode),
    };
    unique.into_iter().map(finding).collect()
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
    let place = format!("NetworkPolicy {}/{}", text(&metadata["namespace"]), text(&metadata["name"]));
    let found = format!("names ports without 15008: {directions}");
    Some(Finding::error(&place, found, "add port 15008, and let policies of Weft decide"))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{kube_proxy, network_policy, node, numbers, version};
    use crate::cluster::check::finding::Level;

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
        let (good, old) = (version("v1.34.4"), version("v1.30.9"));
        assert_eq!((good.level, old.level), (Level::Ok, Level::Error));
        assert!(old.fix.unwrap().contains("1.31 or newer"));
        let of = |system: &str, kernel: &str| {
            node(&json!({
                "metadata": { "name": "n" }, "status": { "nodeInfo": { "operatingSystem": system, "kernelVersion": kernel } },
            }))
        };
        let levels =
            [of("linux", "6.1.0"), of("windows", "10.0.1"), of("linux", "4.19.0")].map(|finding| finding.level);
        assert_eq!(levels, [Level::Ok, Level::Error, Level::Error]);
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

    #[test]
    fn modes_of_kube_proxy_each_once() {
        let modes =
            ["nftables", "ipvs", "nftables", ""].map(|mode| Some(mode.to_owned()).filter(|mode| !mode.is_empty()));
        let levels: Vec<Level> = kube_proxy(&modes).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Warning, Level::Ok, Level::Note]);
    }
}
