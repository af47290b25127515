//! One fault: it comes, it lasts, somebody mends what has to be mended.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use weft_testkit::agents::Proxied;
use weft_testkit::netns::run;
use weft_testkit::wait;

use super::schedule::Fault;
use super::stage::{RECOVERY, Stage};

/// The policy of [`Fault::DenyAll`].
const DENY: &str = "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: shop}\n\
                    spec: {action: Deny, rules: [{}]}\n";

/// Lets the fault come, last, and end.
pub(super) fn inflict(stage: &mut Stage, fault: Fault, lasts: Duration) -> Result<()> {
    match fault {
        Fault::KillProxy(node) => away(agent(stage, node)?, lasts, Halves { proxy: true, capture: false }),
        Fault::KillCapture(node) => away(agent(stage, node)?, lasts, Halves { proxy: false, capture: true }),
        Fault::KillBoth(node) => away(agent(stage, node)?, lasts, Halves { proxy: true, capture: true }),
        Fault::Upgrade(node) => upgrade(stage, node),
        Fault::Freeze(node) => {
            let proxy = &agent(stage, node)?.proxy;
            proxy.process().signal(Signal::SIGSTOP)?;
            wait::pause(lasts);
            proxy.process().signal(Signal::SIGCONT)
        }
        Fault::KillServer => {
            stage.mesh.server.kill9()?;
            wait::pause(lasts);
            stage.mesh.server.restart()?;
            stage.mesh.server.wait_ready()
        }
        Fault::RestartServer => {
            stage.mesh.server.terminate()?;
            stage.mesh.server.restart()?;
            stage.mesh.server.wait_ready()
        }
        Fault::FlushMangle => {
            for program in ["iptables", "ip6tables"] {
                run(stage.client.command(program).args(["-w", "5", "-t", "mangle", "-F"]))?;
            }
            wait::pause(lasts);
            Ok(())
        }
        Fault::DeleteRoute => {
            for family in ["-4", "-6"] {
                run(stage.client.command("ip").args([family, "rule", "del", "pref", "32764"]))?;
            }
            wait::pause(lasts);
            Ok(())
        }
        Fault::DenyAll => {
            stage.cluster.directory().apply_yaml("policy-deny", DENY)?;
            wait::pause(lasts);
            stage.cluster.directory().delete("policy-deny")
        }
        Fault::Unready => {
            stage.cluster.change_pod("far", |plan| plan.ready = false)?;
            wait::pause(lasts);
            stage.cluster.change_pod("far", |plan| plan.ready = true)
        }
    }
}

/// Which halves.
#[derive(Clone, Copy)]
struct Halves {
    proxy: bool,
    capture: bool,
}

fn away(agent: &mut Proxied, lasts: Duration, halves: Halves) -> Result<()> {
    if halves.proxy {
        agent.proxy.kill9()?;
    }
    if halves.capture {
        agent.capture.kill9()?;
    }
    wait::pause(lasts);
    if halves.capture {
        agent.capture.restart()?;
    }
    if halves.proxy {
        agent.proxy.restart()?;
        agent.proxy.wait_ready()?;
    }
    Ok(())
}

/// The successor stands beside the old one before that drains, and keeps the node from then on; its ports are the others.
fn upgrade(stage: &mut Stage, node: u8) -> Result<()> {
    let mut successor = stage.mesh.successor(&stage.cluster, node)?;
    successor.wait_ready()?;
    let agent = agent(stage, node)?;
    let mut old = std::mem::replace(&mut agent.proxy, successor);
    let ended = old.process_mut().terminate(RECOVERY)?;
    anyhow::ensure!(ended.success(), "the old proxy half ended with {ended}");
    Ok(())
}

fn agent(stage: &mut Stage, node: u8) -> Result<&mut Proxied> {
    stage.mesh.agents.get_mut(usize::from(node) - 1).context("a node of the schedule")
}
