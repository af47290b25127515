//! Two nodes of ours under a stock istiod. The capture halves read the laboratory's directory; everything that the proxy
//! halves know, they know from istiod.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_testkit::agents::{AGENT_ADMIN, AgentFlags, Daemon, DaemonPlan, SERVER_PORT, binary};
use weft_testkit::mesh::{Cluster, PodPlan, ServicePlan};
use weft_testkit::netns::{CONTROL_V4, Lab, Pod, cluster_ip};
use weft_testkit::wait;
use weft_testkit::wire::Capture;

use crate::kubernetes::{Kubernetes, Programs};

/// From a change of an object to its effect; istiod waits 0.1 s for more changes, two busy cores do the rest.
pub(crate) const EFFECT: Duration = Duration::from_secs(30);
/// Where the servers of the tests listen.
pub(crate) const APP: u16 = 8080;
/// HBONE's port.
pub(crate) const HBONE: u16 = 15008;
/// Virtual addresses of the service `cart`: the laboratory's first service.
pub(crate) const CART_SERVICE: u8 = 21;

/// Everything; dropped in this order.
pub(crate) struct Stage {
    pub(crate) wire: Capture,
    pub(crate) proxies: Vec<Daemon>,
    _captures: Vec<Daemon>,
    pub(crate) kubernetes: Kubernetes,
    /// On node 1.
    pub(crate) web: Pod,
    /// On node 2.
    pub(crate) cart: Pod,
    pub(crate) cluster: Cluster,
}

impl Stage {
    /// Builds it, up to agents that are ready.
    pub(crate) fn build(programs: Programs) -> Result<Self> {
        let mut cluster = Cluster::new(Lab::builder().nodes(2).build()?)?;
        cluster.namespace("shop", &[])?;
        cluster.enrol("shop", true)?;
        let web = cluster.pod(PodPlan::new("shop", "web", "web-1", 1))?;
        let cart = cluster.pod(PodPlan::new("shop", "cart", "cart-1", 2))?;
        // On node 1 by the directory only: istiod knows that account on node 2.
        cluster.pod(PodPlan::new("shop", "bank", "bank-1", 1))?;
        cluster.service(ServicePlan::new("shop", "cart", 80, APP))?;
        let kubernetes = Kubernetes::start(cluster.lab(), programs)?;
        objects(&kubernetes, cluster.lab(), &web, &cart)?;
        let root = wait::eventually(EFFECT, "istiod's root", || kubernetes.root(cluster.lab()))?;
        let wire = Capture::start(cluster.lab().wire().name(), "node1", &[])?;
        let (mut captures, mut proxies) = (Vec::new(), Vec::new());
        for node in ["node1", "node2"] {
            let (capture, proxy) = start_agent(&cluster, &kubernetes, node, &root)?;
            captures.push(capture);
            proxies.push(proxy);
        }
        for proxy in &mut proxies {
            proxy.wait_ready()?;
        }
        Ok(Self { wire, proxies, _captures: captures, kubernetes, web, cart, cluster })
    }

    /// A section of the admin page of node `node`, from 1.
    pub(crate) fn section(&self, node: usize, name: &str) -> Result<Value> {
        let admin = SocketAddr::from(([127, 0, 0, 1], AGENT_ADMIN));
        Ok(serde_json::from_str(&self.proxies[node - 1].get(admin, &format!("/debug/{name}"))?)?)
    }

    /// Waits until the agent of node `node` has printed a line with all these words.
    pub(crate) fn wait_log(&self, node: usize, words: &[&str]) -> Result<String> {
        let process = self.proxies[node - 1].process();
        wait::eventually(EFFECT, &format!("a line with {words:?}"), || {
            let output = process.output();
            let found = output.lines().rev().find(|line| words.iter().all(|word| line.contains(word)));
            found.map(str::to_owned).ok_or_else(|| process.tail())
        })
    }

    /// Makes an object of Istio's API.
    pub(crate) fn policy(&self, kind: &str, name: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        });
        self.kubernetes.apply(self.cluster.lab(), &object)
    }

    /// Nothing but TLS on 15008 (and the control plane's port) went between the nodes.
    pub(crate) fn assert_only_hbone(&self) -> Result<()> {
        let report = self.wire.report();
        report.assert_only_tls_on(&[HBONE, SERVER_PORT])?;
        ensure!(report.on_port(HBONE).iter().any(|flow| flow.bytes > 0), "no byte went through HBONE");
        Ok(())
    }

    /// How many resources of a type the agent of a node holds.
    pub(crate) fn held(&self, node: usize, name: &str) -> Result<u64> {
        let view = self.section(node, "config")?;
        let types = view["control_plane"]["types"].as_array().context("types")?;
        let row = types.iter().find(|it| it["name"] == name).context("the type")?;
        row["held"].as_u64().context("a number")
    }
}

fn pod_object(namespace: &str, name: &str, app: &str, node: u8, addresses: [IpAddr; 2]) -> Value {
    let addresses = addresses.map(|address| address.to_string());
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {"app": app},
            // istio-cni's word that the pod is captured; our capture half says it in reports, which istiod does not take.
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "nodeName": format!("node{node}"), "serviceAccountName": app, "containers": [{"name": "app", "image": "none"}],
        },
        "status": {
            "phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": addresses[0]}, {"ip": addresses[1]}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn objects(kubernetes: &Kubernetes, lab: &Lab, web: &Pod, cart: &Pod) -> Result<()> {
    let put = |object: Value| kubernetes.apply(lab, &object);
    let labels = json!({"istio.io/dataplane-mode": "ambient"});
    put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}))?;
    for (namespace, account) in
        [("istio-system", "weft-node-agent"), ("shop", "web"), ("shop", "cart"), ("shop", "bank")]
    {
        let metadata = json!({"name": account, "namespace": namespace});
        put(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))?;
    }
    for node in lab.nodes() {
        put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}}))?;
        let name = format!("weft-{}", node.name);
        let addresses = [node.v4.into(), node.v6.into()];
        put(pod_object("istio-system", &name, "weft-node-agent", node.number, addresses))?;
    }
    put(pod_object("shop", "web-1", "web", 1, [web.v4.into(), web.v6.into()]))?;
    put(pod_object("shop", "cart-1", "cart", 2, [cart.v4.into(), cart.v6.into()]))?;
    put(pod_object("shop", "bank-2", "bank", 2, ["10.244.2.99".parse()?, "fd00:10:244:2::99".parse()?]))?;
    let (v4, v6) = cluster_ip(CART_SERVICE);
    put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "clusterIP": v4, "clusterIPs": [v4, v6], "ipFamilyPolicy": "PreferDualStack", "selector": {"app": "cart"},
            "ports": [{"name": "tcp", "port": 80, "targetPort": APP}],
        },
    }))?;
    for (family, address) in [("IPv4", IpAddr::from(cart.v4)), ("IPv6", cart.v6.into())] {
        put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("cart-{}", family.to_lowercase()), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "cart"},
            },
            "ports": [{"name": "tcp", "port": APP}],
            "endpoints": [{
                "addresses": [address], "conditions": {"ready": true}, "nodeName": "node2",
                "targetRef": {"kind": "Pod", "name": "cart-1", "namespace": "shop"},
            }],
        }))?;
    }
    Ok(())
}

fn start_agent(cluster: &Cluster, kubernetes: &Kubernetes, node: &str, root: &str) -> Result<(Daemon, Daemon)> {
    let lab = cluster.lab();
    let directory = lab.directory().join(node);
    fs::create_dir_all(&directory)?;
    let pod = format!("weft-{node}");
    let uid = kubernetes.kubectl(lab, &["get", "pod", "-n", "istio-system", &pod, "-o", "jsonpath={.metadata.uid}"])?;
    // Bound to the agent's pod, as the kubelet's projected token is: istiod learns the caller's node from it.
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &pod, "--bound-object-uid", &uid];
    let create = ["create", "token", "weft-node-agent", "-n", "istio-system", "--audience", "istio-ca"];
    let token = kubernetes.kubectl(lab, &[&create[..], &bound[..]].concat())?;
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
        Ok(path)
    };
    let (token, root) = (file("token", token.trim())?, file("root.pem", root)?);
    let common = format!("--node {node} --handover {}", directory.join("handover.sock").display());
    let capture = format!("capture {common} --source dir:{} --proxy-uid 65534", cluster.directory().root().display());
    let proxy = format!(
        "proxy {common} --xds-address {CONTROL_V4}:{SERVER_PORT} --xds-server-name istiod.istio-system.svc --roots {} \
         --token-file {} --pod-name {pod} --pod-namespace istio-system --run-as 65534",
        root.display(),
        token.display()
    );
    let number = lab.nodes().iter().find(|it| it.name == node).context("the node")?;
    let start = |half: &str, words: &str, health| -> Result<Daemon> {
        let mut command = vec![binary("weft-node-agent")?.into_os_string()];
        command.extend(words.split_whitespace().map(Into::into));
        Daemon::start(DaemonPlan {
            name: format!("{half}-{node}"),
            netns: number.netns().to_owned(),
            command,
            environment: Vec::new(),
            health,
            logs: lab.directory().join("logs"),
        })
    };
    Ok((start("capture", &capture, None)?, start("proxy", &proxy, Some(AgentFlags::health()))?))
}
