//! One fault: it comes, it lasts, somebody mends what has to be mended.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use weft_testkit::agents::Proxied;
use weft_testkit::netns::run;
use weft_testkit::traffic::Behaviour;
use weft_testkit::wait;

use super::neighbour::{Flood, ask, connect};
use super::schedule::{Fault, Misbehaviour};
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
        Fault::EmptyState => empty_state(stage, lasts),
        Fault::EmptySource => empty_source(stage, lasts),
        Fault::CutWire(node) => {
            let wire = stage.cluster.lab().wire();
            wire.ip(&format!("link set node{node} down\n"))?;
            wait::pause(lasts);
            wire.ip(&format!("link set node{node} up\n"))
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
        Fault::DenyAll => deny_all(stage, lasts),
        Fault::Unready => {
            stage.cluster.change_pod("far", |plan| plan.ready = false)?;
            wait::pause(lasts);
            stage.cluster.change_pod("far", |plan| plan.ready = true)
        }
        Fault::Endpoint(misbehaviour) => {
            stage.fickle.take();
            stage.fickle = match misbehaviour {
                Misbehaviour::Refuses => None,
                Misbehaviour::Hangs => Some(stage.fickle_server(Behaviour::Silent)?),
                Misbehaviour::Resets => Some(stage.fickle_server(Behaviour::Reset)?),
            };
            wait::pause(lasts);
            stage.fickle.take();
            stage.fickle = Some(stage.fickle_server(Behaviour::Echo)?);
            Ok(())
        }
        Fault::Flood => {
            let flood = Flood::start(&stage.neighbour, stage.far.echo)?;
            wait::pause(lasts);
            let opened = flood.end();
            ensure!(opened > 0, "the flood opened nothing");
            Ok(())
        }
    }
}

/// A policy that denies everything: lasts from when it is in force.
fn deny_all(stage: &Stage, lasts: Duration) -> Result<()> {
    stage.cluster.directory().apply_yaml("policy-deny", DENY)?;
    let to = stage.far.echo;
    let denied = wait::eventually(RECOVERY, "the policy is in force", || {
        let answer = stage.neighbour.run(|| connect(to).and_then(|mut stream| ask(&mut stream)))?;
        ensure!(answer.is_err(), "a call is answered");
        anyhow::Ok(())
    });
    wait::pause(lasts);
    stage.cluster.directory().delete("policy-deny")?;
    denied
}

/// The nodes' copy of the root certificate is the server's file here, so they get the new one when it is written. The directory
/// itself stays: a sandboxed proxy half reads what is in it, and would not read what is in another one of its name.
fn empty_state(stage: &mut Stage, lasts: Duration) -> Result<()> {
    stage.mesh.server.kill9()?;
    let state = stage.cluster.lab().directory().join("weft/server");
    for entry in fs::read_dir(&state)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    wait::pause(lasts);
    stage.mesh.server.restart()?;
    stage.mesh.server.wait_ready()
}

/// As a volume that is not mounted yet. That the directory is followed again shows in a policy that comes into force.
fn empty_source(stage: &mut Stage, lasts: Duration) -> Result<()> {
    let root = stage.cluster.directory().root().to_owned();
    let away = root.with_extension("away");
    stage.mesh.server.kill9()?;
    fs::rename(&root, &away)?;
    fs::create_dir(&root)?;
    stage.mesh.server.restart()?;
    let ready = stage.mesh.server.wait_ready();
    wait::pause(lasts);
    fs::remove_dir(&root)?;
    fs::rename(&away, &root)?;
    ready?;
    deny_all(stage, Duration::ZERO)
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
