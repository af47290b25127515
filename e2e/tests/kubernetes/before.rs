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

/// Level, place and words of each finding; and whether the exit code is good.
fn check() -> Result<(Vec<(String, String, String)>, bool)> {
    let output = weft(&["check", "--pre", "-o", "json"])?;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).context("findings as JSON")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = found
        .iter()
        .map(|one| (text(&one["level"]), text(&one["where"]), text(&one["finding"]) + " " + &text(&one["fix"])));
    Ok((found.collect(), output.status.success()))
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn what_stands_in_the_way_is_found_before_anything_is_installed() -> Result<()> {
    let _others = among_others();
    let stage = Stage::new("before", OBSTACLES)?;
    let (found, good) = check()?;
    let here = |level: &str, place: &str, words: &str| {
        assert!(
            found.iter().any(|one| one.0 == level && one.1 == place && one.2.contains(words)),
            "{place}: {found:#?}"
        );
    };
    let nodes = run(&["get", "nodes", "-o", "name"], "")?.lines().count();
    assert_eq!(found.iter().filter(|one| one.0 == "ok" && one.1.starts_with("node ")).count(), nodes, "{found:#?}");
    here("ok", "Kubernetes", "v1.");
    here("ok", "right to create daemonsets", "allowed");
    assert!(found.iter().any(|one| one.1 == "kube-proxy"), "{found:#?}");
    assert!(!good, "with errors");
    here("error", &format!("NetworkPolicy {}/only-web", stage.namespace), "add port 15008");
    here("note", "CNI", &format!("Cilium (DaemonSet {}/cilium)", stage.namespace));
    here("error", "CNI", "cni.exclusive=false");
    here("warning", "CNI", "socketLB.hostNamespaceOnly=true");
    Ok(())
}
