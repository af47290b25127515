//! A cluster brought up, and taken down again with all that it left on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::node::{control, groups};
use crate::plan::{Node, Plan};
use crate::{control_plane, dns, kubectl, network, parts, pki, wait};

/// Nodes are Ready some 6 s after the API server on two busy cores.
const NODES: Duration = Duration::from_secs(120);

/// Programs of Debian packages, with the packages.
const NEEDED: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("ctr", "containerd"),
    ("iptables-restore", "iptables"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];

/// Brings a cluster up, or what is missing of it.
///
/// # Errors
/// This machine cannot hold one (says why), or a part does not become ready.
pub fn up(plan: &Plan, say: &dyn Fn(&str)) -> Result<()> {
    possible()?;
    parts::build(&plan.folder, &parts::CLUSTER, say)?;
    let begin = Instant::now();
    let seconds = || begin.elapsed().as_secs_f32();
    fs::create_dir_all(plan.own(""))?;
    fs::write(Plan::file(&plan.folder, &plan.name), serde_json::to_string_pretty(plan)?)?;
    pki::make(plan)?;
    network::make(plan)?;
    control_plane::start(plan)?;
    say(&format!("API server ready after {:.1} s", seconds()));
    let nodes = plan.all_nodes();
    for node in &nodes {
        control::start(plan, node)?;
        for image in parts::IMAGES {
            control::load(plan, node, &parts::image_file(&plan.folder, image))?;
        }
    }
    kubectl::apply(plan, &dns::objects(plan))?;
    for node in &nodes {
        wait_ready(plan, node)?;
    }
    say(&format!("{} nodes ready after {:.1} s", nodes.len(), seconds()));
    wait::eventually(NODES, "CoreDNS", || {
        let arguments = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=5s"];
        kubectl::run(plan, &arguments).map(drop)
    })?;
    say(&format!("DNS ready after {:.1} s", seconds()));
    Ok(())
}

/// Waits until a node is Ready, and gives it the range that its network has.
///
/// # Errors
/// It does not become ready.
pub fn wait_ready(plan: &Plan, node: &Node) -> Result<()> {
    wait::eventually(NODES, &format!("{} to be ready", node.name), || {
        let arguments = ["wait", "--for=condition=Ready", &format!("node/{}", node.name), "--timeout=5s"];
        kubectl::run(plan, &arguments).map(drop)
    })
    .with_context(|| format!("see the logs in {}", plan.own("log").display()))?;
    let ranges = node.pod_ranges();
    let patch = serde_json::json!({ "spec": { "podCIDR": ranges[0], "podCIDRs": ranges } }).to_string();
    kubectl::run(plan, &["patch", "node", &node.name, "-p", &patch]).map(drop)
}

/// Ends everything. Programs and images stay for the next time; the cluster's own folder goes.
///
/// # Errors
/// Something cannot be ended or removed.
pub fn down(plan: &Plan) -> Result<()> {
    for node in plan.all_nodes() {
        control::kill(plan, &node)?;
    }
    control_plane::stop(plan)?;
    network::remove(plan)?;
    // Whoever was in the groups is gone when its process 1 is; the kernel needs a moment to say so.
    wait::eventually(Duration::from_secs(10), "the control groups to be empty", || groups::remove(plan))?;
    let own = plan.own("");
    fs::remove_dir_all(&own).with_context(|| own.display().to_string())
}

/// Whether this machine can hold a cluster.
fn possible() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the local cluster needs root: its nodes have namespaces, mounts and control groups; or give the tests a KUBECONFIG of your own"
        );
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        let usual = ["/usr/sbin", "/sbin"].map(Into::into);
        std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
    };
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if !Path::new("/usr/lib/cni/ptp").exists() {
        missing.push("containernetworking-plugins");
    }
    if !Path::new("/bin/busybox").exists() {
        missing.push("busybox-static");
    }
    missing.dedup();
    if !missing.is_empty() {
        bail!("missing Debian packages: apt-get install --no-install-recommends {}", missing.join(" "));
    }
    groups::hierarchies().map(drop)?;
    // Overlays need a file system that the kernel knows how to put below; namespaces may be forbidden.
    crate::shell::run(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]))
        .context("this machine forbids namespaces, and the local cluster is made of them")
        .map(drop)
}
