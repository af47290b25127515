//! The words of one Kubernetes object, in the shape of `kubectl get -o yaml` with the fields that the mesh reads. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::plan::{PodPlan, ServicePlan};

/// A YAML string that no reader takes for a number or a boolean: JSON's quoting is YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn block(name: &str, pairs: &[(String, String)], indent: usize) -> String {
    let mut text = String::new();
    if !pairs.is_empty() {
        let _ = writeln!(text, "{:indent$}{name}:", "");
        for (key, value) in pairs {
            let _ = writeln!(text, "{:indent$}  {key}: {}", "", quoted(value));
        }
    }
    text
}

/// A Namespace.
#[must_use]
pub fn namespace(name: &str, labels: &[(String, String)]) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n{}", block("labels", labels, 2))
}

/// A ServiceAccount.
#[must_use]
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {namespace}\n")
}

/// A Node with its addresses and its zone.
#[must_use]
pub fn node(name: &str, addresses: &[IpAddr], zone: &str) -> String {
    let zones = [
        ("topology.kubernetes.io/region".to_owned(), "lab".to_owned()),
        ("topology.kubernetes.io/zone".to_owned(), zone.to_owned()),
    ];
    let mut text = format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n{}", block("labels", &zones, 2));
    text.push_str("status:\n  addresses:\n");
    for address in addresses {
        let _ = writeln!(text, "  - {{type: InternalIP, address: {}}}", quoted(&address.to_string()));
    }
    text
}

/// A Pod that runs; `uid` is its metadata.uid, `netns` goes into the annotation `weft.dev/netns`.
#[must_use]
pub fn pod(plan: &PodPlan, addresses: &[IpAddr], uid: &str, netns: &str) -> String {
    let mut annotations = vec![("weft.dev/netns".to_owned(), netns.to_owned())];
    annotations.extend(plan.annotations.iter().cloned());
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  uid: {uid}\n{}{}spec:\n  nodeName: node{}\n  \
         serviceAccountName: {}\n",
        plan.name,
        plan.namespace,
        block("labels", &plan.labels, 2),
        block("annotations", &annotations, 2),
        plan.node,
        plan.account,
    );
    if !plan.ports.is_empty() {
        text.push_str("  containers:\n  - name: main\n    ports:\n");
        for (name, port) in &plan.ports {
            let _ = writeln!(text, "    - {{name: {}, containerPort: {port}, protocol: TCP}}", quoted(name));
        }
    }
    text.push_str("status:\n  phase: Running\n");
    if let Some(first) = addresses.first() {
        let _ = writeln!(text, "  podIP: {}\n  podIPs:", quoted(&first.to_string()));
    }
    for address in addresses {
        let _ = writeln!(text, "  - ip: {}", quoted(&address.to_string()));
    }
    let ready = if plan.ready { "True" } else { "False" };
    let _ = writeln!(text, "  conditions:\n  - {{type: Ready, status: \"{ready}\"}}");
    text
}

/// A Service with two ClusterIPs, or a headless one without `addresses`.
#[must_use]
pub fn service(plan: &ServicePlan, addresses: &[IpAddr]) -> String {
    let listed: Vec<String> =
        if addresses.is_empty() { vec!["None".into()] } else { addresses.iter().map(IpAddr::to_string).collect() };
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  type: ClusterIP\n  clusterIP: {}\n  \
         clusterIPs:\n",
        plan.name,
        plan.namespace,
        quoted(&listed[0])
    );
    for address in &listed {
        let _ = writeln!(text, "  - {}", quoted(address));
    }
    text.push_str("  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: PreferDualStack\n");
    text.push_str(&block("selector", &plan.selector, 2));
    text.push_str("  ports:\n");
    for (port, target) in &plan.ports {
        let _ = writeln!(text, "  - {{name: tcp-{port}, port: {port}, targetPort: {target}, protocol: TCP}}");
    }
    text
}
