//! Which CNI plugins a cluster has and how they are set, as far as the API server knows: whether new pods will be held back until they are
//! captured, and whether services are still addresses when a pod's call leaves it.

use serde_json::{Value, json};
use weft_kubernetes::Cluster;
use weft_runtime::failure::words;

use super::finding::Finding;
use crate::cluster::object::text;

/// The DaemonSets by which plugins are installed, as their own manifests and charts name them.
const PLUGINS: [(&str, &str); 15] = [
    ("anetd", "Cilium (GKE Dataplane V2)"),
    ("antrea-agent", "Antrea"),
    ("aws-node", "Amazon VPC CNI"),
    ("azure-cns", "Azure CNI"),
    ("calico-node", "Calico"),
    ("canal", "Canal"),
    ("cilium", "Cilium"),
    ("kindnet", "kindnet"),
    ("kube-flannel-ds", "Flannel"),
    ("kube-multus-ds", "Multus"),
    ("kube-router", "kube-router"),
    ("multus", "Multus"),
    ("ovnkube-node", "OVN-Kubernetes"),
    ("rke2-canal", "Canal"),
    ("weave-net", "Weave Net"),
];

/// A distribution whose nodes have CNI where others do not.
struct Distribution {
    name: &'static str,
    is: fn(&Value) -> bool,
    configurations: &'static str,
    programs: &'static str,
}

/// Sources: docs.k3s.io (`data/cni` since the end of 2024), microk8s.io, and the values that Istio's charts have for the three.
const DISTRIBUTIONS: [Distribution; 3] = [
    Distribution {
        name: "k3s",
        is: |node| kubelet(node).contains("+k3s"),
        configurations: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        programs: "/var/lib/rancher/k3s/data/cni",
    },
    Distribution {
        name: "MicroK8s",
        is: |node| node["metadata"]["labels"]["microk8s.io/cluster"] == "true",
        configurations: "/var/snap/microk8s/current/args/cni-network",
        programs: "/var/snap/microk8s/current/opt/cni/bin",
    },
    Distribution {
        name: "GKE",
        is: |node| kubelet(node).contains("-gke."),
        configurations: "/etc/cni/net.d",
        programs: "/home/kubernetes/bin",
    },
];

/// What is known of a cluster's plugins.
#[derive(Debug)]
pub(super) struct Seen {
    /// Every DaemonSet, or why they are not known.
    sets: Result<Vec<Value>, String>,
    /// Cilium's ConfigMap.
    cilium: Option<Value>,
    /// Calico's FelixConfiguration `default`.
    felix: Option<Value>,
}

/// Asks. What cannot be read is not known.
pub(super) async fn gather(cluster: &Cluster) -> Seen {
    let sets = cluster.list("DaemonSet", "").await.map_err(|error| words(&error));
    let namespace = sets.iter().flatten().find(|set| named(set, "cilium") || named(set, "anetd"));
    let namespace = namespace.map(|set| set["metadata"]["namespace"].clone()).unwrap_or_default();
    let cilium = json!({ "kind": "ConfigMap", "metadata": { "namespace": namespace, "name": "cilium-config" } });
    let felix = json!({ "kind": "FelixConfiguration", "metadata": { "name": "default" } });
    let (cilium, felix) = tokio::join!(cluster.read(&cilium), cluster.read(&felix));
    Seen { sets, cilium: cilium.ok().flatten(), felix: felix.ok().flatten() }
}

/// What is said of it, and of the nodes' directories.
pub(super) fn findings(seen: &Seen, nodes: &[Value]) -> Vec<Finding> {
    let mut findings = match &seen.sets {
        Ok(sets) => plugins(sets),
        Err(why) => vec![Finding::note(PLACE, format!("its plugins are unknown: {why}"))],
    };
    findings.extend(seen.cilium.as_ref().and_then(exclusive));
    findings.extend(connect_time(seen));
    findings.extend(directories(nodes));
    findings
}

fn plugins(sets: &[Value]) -> Vec<Finding> {
    let known = |set: &Value| {
        let (_, plugin) = PLUGINS.iter().find(|(name, _)| named(set, name))?;
        let metadata = &set["metadata"];
        let found = format!("{plugin} (DaemonSet {}/{})", text(&metadata["namespace"]), text(&metadata["name"]));
        Some(match *plugin {
            "Multus" => Finding::warning(
                PLACE,
                format!("{found}: the plugin of Weft is chained into the file that the runtime reads first"),
                "if that is Multus' own file, weft check says afterwards whether new pods wait for their capture: try one",
            ),
            _ => Finding::note(PLACE, format!("{found}; Weft's own tests run with ptp")),
        })
    };
    let found: Vec<Finding> = sets.iter().filter_map(known).collect();
    match found.is_empty() {
        false => found,
        true => vec![Finding::note(
            PLACE,
            "no plugin that is known by its DaemonSet: files on the nodes, or one of your own",
        )],
    }
}

const PLACE: &str = "CNI";

/// Cilium watches its file where it wants to be alone, and writes it anew whenever somebody else is chained into it.
fn exclusive(config: &Value) -> Option<Finding> {
    (config["data"]["cni-exclusive"] != "false").then(|| {
        Finding::error(
            PLACE,
            "Cilium wants to be the only plugin (cni-exclusive), and throws out whatever is chained into its file: new pods would not \
             wait for their capture",
            "set cni.exclusive=false in Cilium's Helm values, or in its ConfigMap cilium-config and restart its DaemonSet",
        )
    })
}

/// What replaces a service's address while a program connects leaves the mesh a pod's address.
fn connect_time(seen: &Seen) -> Option<Finding> {
    let effect = "a service's address becomes a pod's while a program connects: calls are encrypted and allowed as before, but the mesh \
                  does not choose the endpoint, and does not know the service";
    let cilium = seen.cilium.as_ref().map(|config| &config["data"]).is_some_and(|data| {
        let replaces = ["true", "strict"].map(Value::from).contains(&data["kube-proxy-replacement"]);
        (replaces || data["bpf-lb-sock"] == "true") && data["bpf-lb-sock-hostns-only"] != "true"
    });
    if cilium {
        let fix = "set socketLB.hostNamespaceOnly=true in Cilium's Helm values";
        return Some(Finding::warning(
            PLACE,
            format!("Cilium's socket load balancer is there for pods, too: {effect}"),
            fix,
        ));
    }
    let calico = seen.sets.iter().flatten().find(|set| named(set, "calico-node"))?;
    let spec = seen.felix.as_ref().map_or(&Value::Null, |felix| &felix["spec"]);
    let by_environment = || {
        let containers = calico["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
        let mut variables = containers.flat_map(|container| container["env"].as_array().into_iter().flatten());
        variables.any(|one| one["name"] == "FELIX_BPFENABLED" && one["value"] == "true")
    };
    let is_on = spec["bpfEnabled"].as_bool().unwrap_or_else(by_environment);
    (is_on && spec["bpfConnectTimeLoadBalancing"] != "Disabled").then(|| {
        let fix = "kubectl patch felixconfiguration default --type merge -p \
                   '{\"spec\":{\"bpfConnectTimeLoadBalancing\":\"Disabled\",\"bpfHostNetworkedNATWithoutCTLB\":\"Enabled\"}}'";
        Finding::warning(PLACE, format!("Calico's eBPF dataplane balances at connect time: {effect}"), fix)
    })
}

/// Each distribution once.
fn directories(nodes: &[Value]) -> Vec<Finding> {
    let found = DISTRIBUTIONS.iter().filter_map(|Distribution { name, is, configurations, programs }| {
        let count = nodes.iter().filter(|node| is(node)).count();
        let found = || {
            format!("{count} of {} nodes are of {name}, which has CNI in {configurations} and {programs}", nodes.len())
        };
        let fix = || format!("weft install --set cni.configurations={configurations} --set cni.programs={programs}");
        (count > 0).then(|| Finding::warning(PLACE, found(), fix()))
    });
    found.collect()
}

fn kubelet(node: &Value) -> &str {
    text(&node["status"]["nodeInfo"]["kubeletVersion"])
}

fn named(object: &Value, name: &str) -> bool {
    object["metadata"]["name"] == name
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Seen, findings};
    use crate::cluster::check::finding::Level;

    fn set(name: &str) -> Value {
        json!({ "metadata": { "namespace": "kube-system", "name": name }, "spec": { "template": { "spec": { "containers": [{
            "env": [{ "name": "FELIX_BPFENABLED", "value": "true" }],
        }] } } } })
    }

    fn none() -> Seen {
        Seen { sets: Ok(Vec::new()), cilium: None, felix: None }
    }

    fn with(name: &str) -> Seen {
        Seen { sets: Ok(vec![set("kube-proxy"), set(name)]), ..none() }
    }

    fn cilium(data: Value) -> Seen {
        Seen { cilium: Some(json!({ "data": data })), ..with("cilium") }
    }

    fn calico(spec: Value) -> Seen {
        Seen { felix: Some(json!({ "spec": spec })), ..with("calico-node") }
    }

    /// Of each finding: its level, and words of it.
    #[rstest]
    #[case::no_right(Seen { sets: Err("forbidden".into()), ..none() }, &[(Level::Note, "unknown: forbidden")])]
    #[case::files(none(), &[(Level::Note, "no plugin that is known")])]
    #[case::known(with("kindnet"), &[(Level::Note, "kindnet (DaemonSet kube-system/kindnet)")])]
    #[case::multus(with("kube-multus-ds"), &[(Level::Warning, "chained into the file")])]
    #[case::cilium_alone(cilium(json!({})), &[(Level::Note, "Cilium (DaemonSet"), (Level::Error, "cni-exclusive")])]
    #[case::cilium(cilium(json!({ "cni-exclusive": "false" })), &[(Level::Note, "Cilium (DaemonSet")])]
    #[case::cilium_for_kube_proxy(
        cilium(json!({ "cni-exclusive": "false", "kube-proxy-replacement": "true" })),
        &[(Level::Note, "Cilium (DaemonSet"), (Level::Warning, "socket load balancer")],
    )]
    #[case::cilium_of_the_host_alone(
        cilium(json!({ "cni-exclusive": "false", "kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true" })),
        &[(Level::Note, "Cilium (DaemonSet")],
    )]
    #[case::calico(calico(json!({ "bpfEnabled": false })), &[(Level::Note, "Calico (DaemonSet")])]
    #[case::calico_bpf(calico(json!({ "bpfEnabled": true })), &[(Level::Note, "Calico (DaemonSet"), (Level::Warning, "at connect time")])]
    #[case::calico_bpf_by_environment(with("calico-node"), &[(Level::Note, "Calico (DaemonSet"), (Level::Warning, "at connect time")])]
    #[case::calico_bpf_without(
        calico(json!({ "bpfEnabled": true, "bpfConnectTimeLoadBalancing": "Disabled" })), &[(Level::Note, "Calico (DaemonSet")],
    )]
    fn plugins(#[case] seen: Seen, #[case] expected: &[(Level, &str)]) {
        let found = findings(&seen, &[]);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (finding, (level, words)) in found.iter().zip(expected) {
            assert!(finding.level == *level && finding.finding.contains(words), "{finding:#?}");
            assert_eq!(finding.fix.is_some(), finding.level > Level::Note);
        }
    }

    #[rstest]
    #[case("v1.34.4", json!({}), None)]
    #[case("v1.34.4+k3s1", json!({}), Some("cni.programs=/var/lib/rancher/k3s/data/cni"))]
    #[case("v1.34.4+rke2r1", json!({}), None)]
    #[case("v1.34.4-gke.1001000", json!({}), Some("cni.configurations=/etc/cni/net.d --set cni.programs=/home/kubernetes/bin"))]
    #[case("v1.34.4", json!({ "microk8s.io/cluster": "true" }), Some("cni.configurations=/var/snap/microk8s/current/args/cni-network"))]
    fn nodes_with_directories_of_their_own(#[case] kubelet: &str, #[case] labels: Value, #[case] fix: Option<&str>) {
        let node = json!({ "metadata": { "labels": labels }, "status": { "nodeInfo": { "kubeletVersion": kubelet } } });
        let found = findings(&with("kindnet"), &[node.clone(), node]);
        let found = found.iter().find(|finding| finding.level == Level::Warning);
        match (found, fix) {
            (None, None) => {}
            (Some(finding), Some(fix)) => {
                assert!(
                    finding.finding.starts_with("2 of 2 nodes")
                        && finding.fix.as_ref().is_some_and(|said| said.contains(fix))
                );
            }
            wrong => panic!("{wrong:?}"),
        }
    }
}
