//! A node from outside: started, ended, and what a test does to it.
//!
//! To end process 1 of a PID namespace ends all that is in it: that is a machine that loses power. To start the node again is that
//! machine's boot: its disk (containers' data, the network plugins' files) is still there, its memory is not.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use crate::plan::{Node, Plan};
use crate::started::Started;
use crate::{network, shell, wait};

/// containerd answers within a second of its start; on busy cores within some.
const CONTAINERD: Duration = Duration::from_secs(60);

/// Process 1 of a node.
#[must_use]
pub fn process(plan: &Plan, node: &Node) -> Started {
    Started::of(plan.own("run").join(&node.name))
}

/// Starts a node, unless it runs, and waits for its containerd.
///
/// # Errors
/// A namespace cannot be made, or containerd does not answer.
pub fn start(plan: &Plan, node: &Node) -> Result<()> {
    if process(plan, node).alive().is_some() {
        return Ok(());
    }
    network::make_node(plan, node)?;
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    command.arg("--folder").arg(&plan.folder).args(["--name", &plan.name, "node-enter", &node.name]);
    // Prints the number of process 1 and ends.
    let pid = shell::run(&mut command)?.trim().parse().context("the number of a process")?;
    process(plan, node).note(pid)?;
    wait::eventually(CONTAINERD, &format!("containerd of {}", node.name), || {
        if process(plan, node).alive().is_none() {
            return Err(anyhow!("the node has ended: see {}", log(plan, node, "init").display()));
        }
        shell::run(ctr(plan, node)?.arg("version")).map(drop)
    })
}

/// Ends a node at once, as a power cut does.
///
/// # Errors
/// It cannot be ended.
pub fn kill(plan: &Plan, node: &Node) -> Result<()> {
    process(plan, node).end(Signal::SIGKILL)
}

/// `ctr` for a node's images and containers: its socket seen from outside.
///
/// # Errors
/// The node does not run.
pub fn ctr(plan: &Plan, node: &Node) -> Result<Command> {
    let pid = process(plan, node).alive().with_context(|| format!("{} does not run", node.name))?;
    let mut command = Command::new("ctr");
    command.args(["--address", &format!("/proc/{pid}/root/run/containerd/containerd.sock"), "--namespace", "k8s.io"]);
    Ok(command)
}

/// A command that runs inside a node, in all of its namespaces.
///
/// # Errors
/// The node does not run.
pub fn inside(plan: &Plan, node: &Node) -> Result<Command> {
    let pid = process(plan, node).alive().with_context(|| format!("{} does not run", node.name))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
    Ok(command)
}

/// Puts an image's archive into a node.
///
/// # Errors
/// containerd refuses it.
pub fn load(plan: &Plan, node: &Node, archive: &std::path::Path) -> Result<()> {
    let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
    shell::run(ctr(plan, node)?.args(["images", "import", "--all-platforms"]).arg(archive)).map(drop)
}

/// Where a node's program writes its log.
#[must_use]
pub fn log(plan: &Plan, node: &Node, program: &str) -> std::path::PathBuf {
    plan.own("log").join(format!("{}-{program}.log", node.name))
}
