//! The configuration files of a node's programs. Pure. Why each unusual value is there stands beside it.

use serde_json::{Value, json};

use crate::parts::PAUSE;
use crate::plan::{Node, Plan};

/// Where a node finds the cluster's folder.
pub const FOLDER: &str = "/opt/weft-cluster";

/// The kubelet's program in a node.
pub const KUBELET: &str = "/usr/local/bin/kubelet";

/// containerd 1.6 or newer.
#[must_use]
pub fn containerd() -> String {
    format!(
        "version = 2\n\
         # Lowering it needs CAP_SYS_RESOURCE, which machines in a virtual machine's sandbox may lack.\n\
         oom_score = 0\n\
         root = \"/var/lib/containerd\"\n\
         state = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\", \"io.containerd.internal.v1.tracing\"]\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
           sandbox_image = \"{PAUSE}\"\n\
           restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
           bin_dir = \"/opt/cni/bin\"\n\
           conf_dir = \"/etc/cni/net.d\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
           runtime_type = \"io.containerd.runc.v2\"\n"
    )
}

/// The primary network: `ptp`, because with `bridge` a pod that reaches a pod of its own node by a service's address gets its
/// answer past conntrack.
#[must_use]
pub fn cni(node: &Node) -> Value {
    let ranges: Vec<Value> = node.pod_ranges().iter().map(|range| json!([{ "subnet": range }])).collect();
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if node.pod_ranges().len() > 1 {
        routes.push(json!({ "dst": "::/0" }));
    }
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            { "type": "ptp", "ipMasq": false, "ipam": { "type": "host-local", "ranges": ranges, "routes": routes } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// The kubelet.
#[must_use]
pub fn kubelet(plan: &Plan, node: &Node, max_open_files: u64) -> Value {
    let pki = |file: &str| in_node(plan, &format!("pki/{file}"));
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki("ca.pem") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki(&format!("{}.pem", node.name)),
        "tlsPrivateKeyFile": pki(&format!("{}.key", node.name)),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [plan.service(10).to_string()],
        "resolvConf": in_node(plan, "resolv.conf"),
        // Nobody can pull these images again.
        "imageGCHighThresholdPercent": 100,
        // The disk is this machine's, and so is its filling.
        "evictionHard": { "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%" },
        "enforceNodeAllocatable": [],
        // The hard limit: raising it needs CAP_SYS_RESOURCE.
        "maxOpenFiles": max_open_files,
        // A pod of tests comes and goes in a second.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "4s",
    })
}

/// kube-proxy.
#[must_use]
pub fn kube_proxy(plan: &Plan, node: &Node) -> Value {
    let quick = json!({ "minSyncPeriod": "100ms" });
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": in_node(plan, "pki/proxy.kubeconfig") },
        "hostnameOverride": node.name,
        "clusterCIDR": plan.pod_ranges(),
        "mode": plan.proxy.word(),
        // Where the API server reaches it: `weft check` asks for the mode there.
        "metricsBindAddress": "0.0.0.0:10249",
        // It batches its updates for a second otherwise, and a service refuses as long.
        "iptables": quick,
        "nftables": quick,
        // Read-only outside the first network namespace.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

/// The path of a cluster's file inside its nodes.
#[must_use]
pub fn in_node(plan: &Plan, what: &str) -> String {
    format!("{FOLDER}/clusters/{}/{what}", plan.name)
}
