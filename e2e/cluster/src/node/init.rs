//! Process 1 of a node: starts its three programs, starts again what ends, and takes in the orphans of all the others.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use super::mounts;
use crate::plan::{Node, Plan};
use crate::texts::{FOLDER, KUBELET, in_node};
use crate::wait::pause;

/// Between the end of a program and its next start, as an init system waits.
const REST: Duration = Duration::from_millis(500);

const PROGRAMS: [&str; 3] = ["containerd", "kubelet", "proxy"];

/// Runs until it is killed: whoever is process 1 takes the node along when it ends.
///
/// # Errors
/// The node cannot be set up.
pub fn run(plan: &Plan, node: &Node) -> Result<()> {
    mounts::make(plan, node)?;
    let mut running = BTreeMap::new();
    for program in PROGRAMS {
        running.insert(start(plan, node, program)?, program);
    }
    loop {
        let ended = match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => {
                pause(REST);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(program) = running.remove(&ended) {
            pause(REST);
            running.insert(start(plan, node, program)?, program);
        }
    }
}

fn start(plan: &Plan, node: &Node, program: &str) -> Result<Pid> {
    // Inside, the cluster's folder is elsewhere.
    let log = in_node(plan, &format!("log/{}-{program}.log", node.name));
    let output = File::options().create(true).append(true).open(&log).with_context(|| log.clone())?;
    let mut command = command(plan, node, program);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

fn command(plan: &Plan, node: &Node, program: &str) -> Command {
    if program == "containerd" {
        let mut command = Command::new("containerd");
        command.args(["--config", &in_node(plan, "containerd.toml"), "--log-level", "warn"]);
        return command;
    }
    let kube = format!("{FOLDER}/bin/kube");
    let mut command = Command::new(if program == "kubelet" { KUBELET } else { &kube });
    command.arg(program);
    let config = in_node(plan, &format!("{}-{program}.json", node.name));
    command.arg(format!("--config={config}"));
    if program == "kubelet" {
        command.args([
            format!("--kubeconfig={}", in_node(plan, &format!("pki/{}.kubeconfig", node.name))),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={}", node.ips()),
            format!("--node-labels=topology.kubernetes.io/region=here,topology.kubernetes.io/zone={}", node.name),
        ]);
    }
    command
}
