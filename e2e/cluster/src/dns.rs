//! CoreDNS as a Deployment, with the rights that it needs, and the service `kube-dns`.

use serde_json::{Value, json};

use crate::critical;
use crate::plan::Plan;

/// The image's name.
pub const IMAGE: &str = "localhost/weft/coredns:v1";

/// What it serves: the cluster's names; everything else has no such name, at once.
const COREFILE: &str = "\
.:53 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods verified
        ttl 5
    }
    template ANY ANY {
        rcode NXDOMAIN
    }
    cache 5
    reload
}
";

/// The objects.
#[must_use]
pub fn objects(plan: &Plan) -> Vec<Value> {
    let named = |namespaced: bool| {
        let mut metadata = json!({ "name": "coredns" });
        if namespaced {
            metadata["namespace"] = json!("kube-system");
        }
        metadata
    };
    let rule = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    vec![
        critical::quota("kube-system"),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named(true) }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": named(false), "rules": [
            rule("", &["endpoints", "services", "pods", "namespaces"]), rule("discovery.k8s.io", &["endpointslices"]),
        ]}),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": named(false),
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": named(true), "data": { "Corefile": COREFILE } }),
        deployment(),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kube-dns", "namespace": "kube-system" }, "spec": {
            "selector": { "k8s-app": "kube-dns" }, "clusterIP": plan.service(10).to_string(),
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
            ],
        }}),
    ]
}

fn deployment() -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "coredns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "k8s-app": "kube-dns" } },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-dns" } },
                "spec": {
                    "serviceAccountName": "coredns",
                    "priorityClassName": "system-cluster-critical",
                    "dnsPolicy": "Default",
                    "containers": [{
                        "name": "coredns", "image": IMAGE, "imagePullPolicy": "Never",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
                        "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
                    }],
                    "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
                },
            },
        },
    })
}
