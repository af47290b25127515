//! What happens to pods every day, under load by new and by kept connections: no call fails.

use anyhow::{Context, Result, ensure};
use weft_testkit::wait;

use crate::among_others;
use crate::kept::Kept;
use crate::stage::{DEADLINE, Load, Stage, run};

const CLIENT: &str = include_str!("objects/client.yaml");
/// A server that ends as one should: it goes on until nobody sends it anything new, and says bye on kept connections.
const GRACEFUL: &str = include_str!("objects/graceful.yaml");

fn graceful(name: &str) -> Result<Stage> {
    Stage::ready(name, &[CLIENT, GRACEFUL])
}

/// Both loads while `change` happens: neither loses anything.
fn under_load(stage: &Stage, change: impl FnOnce(&dyn Fn(usize) -> Result<()>) -> Result<()>) -> Result<()> {
    let (load, kept) = (Load::start(stage, "http://web/")?, Kept::start(stage, "web", 9000)?);
    change(&|calls| {
        load.more(calls)?;
        kept.more(calls)
    })?;
    load.more(50)?;
    kept.more(50)?;
    let (calls, outcome) = (load.end()?, kept.end()?);
    eprintln!(
        "{}: {calls} calls; {} questions over kept connections, {} ended with a word, {} lost",
        stage.namespace,
        outcome.answered,
        outcome.ended,
        outcome.lost.len()
    );
    outcome.check()
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_deployment_is_updated_and_scaled_from_1_to_10_to_1_and_nothing_fails() -> Result<()> {
    let _others = among_others();
    let stage = graceful("rolling")?;
    stage.enroll()?;
    under_load(&stage, |_| {
        stage.kubectl(&["rollout", "restart", "deployment/web"])?;
        stage.rolled_out("web")?;
        for replicas in [1, 10, 1] {
            stage.kubectl(&["scale", "deployment/web", &format!("--replicas={replicas}")])?;
            stage.rolled_out("web")?;
        }
        Ok(())
    })
}

/// Until the latest calls came to their destinations by the mesh (in tunnels, or on one node), and none in plaintext.
fn all_in_tunnels(stage: &Stage) -> Result<()> {
    const LATEST: usize = 20;
    wait::eventually(DEADLINE, "no call in plaintext any more", || {
        let lines = stage.access_log()?;
        // Without the kubelet's probes, which are never in tunnels.
        let called = |line: &&String| line.contains("direction=inbound") && line.contains(" src.workload=client");
        let mut inbound: Vec<&String> = lines.iter().filter(called).collect();
        // The logs of several agents: `access time=...` sorts them.
        inbound.sort();
        let latest = &inbound[inbound.len().saturating_sub(LATEST)..];
        let tunnels = latest.iter().filter(|line| !line.contains("security=plaintext")).count();
        ensure!(tunnels == LATEST, "{tunnels} of {LATEST}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn kept_connections_go_on_while_their_pods_join_leave_and_join_again() -> Result<()> {
    let _others = among_others();
    let stage = graceful("kept")?;
    let join = |more: &dyn Fn(usize) -> Result<()>| {
        stage.enroll()?;
        more(50)?;
        all_in_tunnels(&stage)
    };
    let leave = |more: &dyn Fn(usize) -> Result<()>| {
        stage.label("weft.dev/mesh-")?;
        stage.captured("False")?;
        more(50)
    };
    under_load(&stage, |more| {
        for _ in 0..2 {
            join(more)?;
            leave(more)?;
        }
        join(more)
    })
    .context("connections in plaintext, older than the mesh")?;
    under_load(&stage, |more| {
        for _ in 0..2 {
            leave(more)?;
            join(more)?;
        }
        leave(more)
    })
    .context("connections in tunnels")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn the_control_plane_is_replaced_under_load_without_a_failed_request() -> Result<()> {
    let _others = among_others();
    let stage = graceful("plane")?;
    stage.enroll()?;
    under_load(&stage, |_| {
        run(&["-n", "weft-system", "rollout", "restart", "deployment/weft-xds-server"], "")?;
        run(&["-n", "weft-system", "rollout", "status", "deployment/weft-xds-server", "--timeout=90s"], "").map(drop)
    })?;
    // And it works: what comes later is taken in.
    stage.kubectl(&["scale", "deployment/web", "--replicas=3"])?;
    stage.rolled_out("web")?;
    stage.captured("True")
}
