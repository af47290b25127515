//! The way into a node: a process that joins the node's control groups and network namespace, makes the other namespaces, starts
//! process 1 in them, says its number and ends.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use super::{control, groups};
use crate::plan::{Node, Plan};

/// Starts process 1 of a node and gives its number as this machine sees it.
///
/// # Errors
/// A namespace cannot be made or entered.
pub fn start_init(plan: &Plan, node: &Node) -> Result<u32> {
    groups::join(plan, node)?;
    let netns = format!("/run/netns/{}", plan.node_netns(node));
    setns(File::open(&netns).with_context(|| netns.clone())?, CloneFlags::CLONE_NEWNET)?;
    // After the groups were joined: the root of the new view is where this process is.
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("cannot make namespaces: the local cluster needs root")?;
    let log = control::log(plan, node, "init");
    std::fs::create_dir_all(plan.own("log"))?;
    let output = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--folder")
        .arg(&plan.folder)
        .args(["--name", &plan.name, "node-init", &node.name])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    // The first child after unshare is process 1.
    Ok(command.spawn()?.id())
}
