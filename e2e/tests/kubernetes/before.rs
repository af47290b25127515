//! `weft check --pre` on a real cluster: what would hold Weft, and what in it would not.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::among_others;
use crate::operator::weft;
use crate::stage::{Stage, run};

/// A policy that lets no tunnel in; and Cilium as its chart installs it by itself, but on no node.
const OBSTACLES: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web}
spec: {podSelector: {}, ingress: [{ports: [{port: 8080}]}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cilium}
spec:
  selector: {matchLabels: {app: cilium}}
  template:
    metadata: {labels: {app: cilium}}
    spec: {nodeSelector: {no: "where"}, containers: [{name: agent, image: "none:1"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config}
data: {kube-proxy-replacement: "true"}
"#;

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn what_stands_in_the_way_is_found_before_anything_is_installed() -> Result<()> {
    let _others = among_others();
    let stage = Stage::new("before", OBSTACLES)?;
    let output = weft(&["check", "--pre", "-o", "json"])?;
    assert!(!output.status.success(), "with errors");
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).context("findings as JSON")?;
    let here = |level: &str, place: &str, words: &str| {
        let is_it = |one: &&Value| {
            let says = |field: &str| one[field].as_str().is_some_and(|text| text.contains(words));
            one["level"] == level && one["where"] == place && (says("finding") || says("fix"))
        };
        assert!(found.iter().any(|one| is_it(&one)), "{level}, {place}, {words}: {found:#?}");
    };
    for node in run(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"], "")?.split_whitespace() {
        here("ok", &format!("node {node}"), "linux");
    }
    here("ok", "Kubernetes", "v1.");
    here("ok", "right to create daemonsets", "allowed");
    assert!(found.iter().any(|one| one["where"] == "kube-proxy"), "{found:#?}");
    here("error", &format!("NetworkPolicy {}/only-web", stage.namespace), "add port 15008");
    here("note", "CNI", &format!("Cilium (DaemonSet {}/cilium)", stage.namespace));
    here("error", "CNI", "cni.exclusive=false");
    here("warning", "CNI", "socketLB.hostNamespaceOnly=true");
    Ok(())
}
