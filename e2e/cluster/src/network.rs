//! The wires: a namespace with a bridge, one namespace for each node, and a wire to this machine.
//!
//! The bridge is in a namespace of its own because with br_netfilter the machine's own packet filter would see its frames, and a
//! container engine sets that to drop them.

use std::process::Command;

use anyhow::Result;

use crate::plan::{Node, Plan};
use crate::shell;

/// Makes what is missing of everything but the nodes' own namespaces.
///
/// # Errors
/// `ip` refuses.
pub fn make(plan: &Plan) -> Result<()> {
    let bridge = plan.bridge_netns();
    if !exists(&bridge) {
        shell::lines(&["ip"], &format!("netns add {bridge}"))?;
        forward(&bridge)?;
        shell::lines(
            &["ip", "-n", &bridge],
            &format!(
                "link set lo up
                 link add bridge type bridge
                 link set bridge up
                 addr add {}/24 dev bridge",
                plan.wire(1)
            ),
        )?;
        if plan.dual_stack {
            shell::lines(&["ip", "-n", &bridge], &format!("addr add {}/64 dev bridge nodad", plan.wire6(1)))?;
        }
        to_this_machine(plan, &bridge)?;
    }
    for node in plan.all_nodes() {
        make_node(plan, &node)?;
    }
    Ok(())
}

/// So that tests, kubectl and a browser on this machine reach pods and services.
fn to_this_machine(plan: &Plan, bridge: &str) -> Result<()> {
    let link = plan.machine_link();
    shell::lines(
        &["ip"],
        &format!(
            "link add {link} type veth peer name machine netns {bridge}
             -n {bridge} link set machine master bridge up
             addr add {}/24 dev {link}
             link set {link} up",
            plan.wire(254)
        ),
    )?;
    let mut routes = format!("route add {} via {}\n", plan.service_range4(), plan.wire(11));
    if plan.dual_stack {
        routes += &format!(
            "addr add {}/64 dev {link} nodad\n-6 route add {} via {}\n",
            plan.wire6(254),
            plan.service_range6(),
            plan.wire6(11)
        );
    }
    for node in plan.all_nodes() {
        routes += &routes_to(&node);
    }
    shell::lines(&["ip"], &routes)
}

/// A node's namespace, if it is not there: a node that was killed keeps its network, as a machine keeps its cable.
///
/// # Errors
/// `ip` refuses.
pub fn make_node(plan: &Plan, node: &Node) -> Result<()> {
    let (bridge, netns) = (plan.bridge_netns(), plan.node_netns(node));
    if exists(&netns) {
        return Ok(());
    }
    let (v4, v6) = node.addresses;
    shell::lines(
        &["ip"],
        &format!(
            "netns add {netns}
             link add eth0 netns {netns} type veth peer name {port} netns {bridge}
             -n {bridge} link set {port} master bridge up
             -n {netns} link set lo up
             -n {netns} link set eth0 up
             -n {netns} addr add {v4}/24 dev eth0
             -n {netns} route add default via {}",
            plan.wire(1),
            port = node.bridge_port(),
        ),
    )?;
    if let Some(v6) = v6 {
        let router = plan.wire6(1);
        shell::lines(
            &["ip", "-n", &netns],
            &format!("addr add {v6}/64 dev eth0 nodad\n-6 route add default via {router}"),
        )?;
    }
    forward(&netns)?;
    for other in plan.all_nodes().iter().filter(|other| *other != node) {
        shell::lines(&["ip", "-n", &netns], &routes_to(other))?;
    }
    shell::lines(&["ip", "-n", &bridge], &routes_to(node))
}

/// Takes everything away.
///
/// # Errors
/// `ip` refuses.
pub fn remove(plan: &Plan) -> Result<()> {
    let of_nodes = plan.all_nodes().into_iter().map(|node| plan.node_netns(&node));
    for netns in of_nodes.chain([plan.bridge_netns()]).filter(|netns| exists(netns)) {
        shell::lines(&["ip"], &format!("netns del {netns}"))?;
    }
    // Gone with the other end, a moment later; a cluster that comes right after wants the name.
    if shell::run(Command::new("ip").args(["link", "show", &plan.machine_link()])).is_ok() {
        let _ = shell::lines(&["ip"], &format!("link del {}", plan.machine_link()));
    }
    Ok(())
}

fn routes_to(node: &Node) -> String {
    let (v4, v6) = node.addresses;
    let mut text = format!("route replace {} via {v4}\n", node.pods.0);
    if let (Some(v6), Some(range)) = (v6, &node.pods.1) {
        text += &format!("-6 route replace {range} via {v6}\n");
    }
    text
}

fn forward(netns: &str) -> Result<()> {
    let set = "echo 1 > /proc/sys/net/ipv4/ip_forward; [ ! -e /proc/sys/net/ipv6 ] || echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    shell::run(Command::new("ip").args(["netns", "exec", netns, "sh", "-c", set])).map(drop)
}

fn exists(netns: &str) -> bool {
    std::path::Path::new("/run/netns").join(netns).exists()
}
