//! The capture half killed in every phase of joining and of leaving, and both halves at once: what a selected pod says
//! leaves its node only inside TLS, looked at on the wire.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::{Extra, SERVER_PORT};
use weft_testkit::enter_or_skip;
use weft_testkit::mesh::PodPlan;
use weft_testkit::netns::{Pod, run};
use weft_testkit::traffic::{Outcome, outcome};
use weft_testkit::wait;

use crate::ask::{answers, at, open, refused, talk};
use crate::checks::Checks;
use crate::world::{Apps, Cast, ECHO, HBONE, SOON, World};

const OPT_OUT: (&str, &str) = ("weft.dev/mesh", "disabled");
/// Long enough to be killed in: the state is shown twice a second.
const SETTLE: &str = "--settle 1500ms";
/// A call of a closed pod has no answer within this.
const CLOSED: Duration = Duration::from_millis(1500);
/// As a machine that has just come up: nothing of ours in the pod.
const FORGET: &str = "for p in iptables ip6tables; do for t in mangle filter; do $p -t $t -F; done; done; \
                      nft delete table inet weft_guard; true";

/// What the capture half of node 1 says of the pod, once it is `wanted` with (or without) old connections.
fn until(world: &World, wanted: &str, old: Option<bool>) -> Result<()> {
    let path = world.cluster.lab().directory().join("weft/node1/capture-status.json");
    wait::eventually(SOON * 2, &format!("late {wanted}, old connections: {old:?}"), || {
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let pods = value["pods"].as_object().context("pods")?;
        let late = pods.values().find(|pod| pod["name"] == "late").context("late is not shown")?;
        let has_old = late["old_connections"].as_u64().unwrap_or_default() > 0;
        ensure!(late["state"] == wanted && old.is_none_or(|old| old == has_old), "{late}");
        anyhow::Ok(())
    })
}

/// Kills the capture half of node 1, and lets `from` talk to `far` while it is away and when it is back.
fn killed(world: &mut World, from: &Pod, cast: &Cast) -> Result<()> {
    let ask = |world: &World| -> Result<()> {
        (0..3).try_for_each(|_| answers(from, cast.far_vip.at(false, 80)))?;
        world.assert_encrypted().map(drop)
    };
    // A tunnel that stands needs no socket of the half that is away.
    answers(from, cast.far_vip.at(false, 80))?;
    world.mesh().agents[0].capture.kill9()?;
    world.wire.forget();
    ask(world).context("while it is away")?;
    // What the dead one said.
    fs::remove_file(world.cluster.lab().directory().join("weft/node1/capture-status.json"))?;
    world.mesh().agents[0].capture.restart()?;
    ask(world).context("when it is back")
}

#[test]
fn killed_in_every_phase_nothing_of_a_selected_pod_is_in_plain() {
    enter_or_skip!();
    let mut world = World::new().unwrap();
    let cast = world.cast().unwrap();
    world.cluster.enrol("shop", true).unwrap();
    let mut plan = PodPlan::new("shop", "late", "late", 1);
    plan.labels.push((OPT_OUT.0.into(), OPT_OUT.1.into()));
    let late = world.cluster.pod(plan).unwrap();
    let _apps = Apps::start(&late).unwrap();
    world.start(&Extra::words("", SETTLE, "")).unwrap();
    world.wait_steady(&["client", "near", "far", "other"]).unwrap();
    // From outside the mesh, idle from here on: it keeps the pod in the second phase of joining.
    let old = open(&cast.hermit, at(&late, false, ECHO)).unwrap();
    talk(&old).unwrap();
    let mut checks = Checks::default();
    checks.check("joining, its own calls captured", || {
        world.cluster.change_pod("late", |plan| plan.labels.retain(|(key, _)| key != OPT_OUT.0))?;
        until(&world, "enrolling", Some(false))?;
        killed(&mut world, &late, &cast)
    });
    checks.check("joining, everything captured, an old connection goes on", || {
        until(&world, "enrolling", Some(true))?;
        killed(&mut world, &late, &cast)?;
        until(&world, "enrolling", Some(true))?;
        talk(&old)
    });
    drop(old);
    checks.check("captured", || {
        until(&world, "captured", None)?;
        killed(&mut world, &late, &cast)?;
        until(&world, "captured", None)
    });
    let live = open(&late, cast.far_vip.at(true, 80)).unwrap();
    checks.check("leaving, its own calls still captured", || {
        talk(&live)?;
        world.cluster.change_pod("late", |plan| plan.labels.push((OPT_OUT.0.into(), OPT_OUT.1.into())))?;
        until(&world, "releasing", None)?;
        killed(&mut world, &late, &cast)
    });
    checks.check("leaving, its calls go direct: what is relayed goes on, and its neighbour stays in the mesh", || {
        world.wire.forget();
        wait::eventually(SOON * 2, "late in plain", || {
            answers(&late, at(&cast.far, false, ECHO))?;
            ensure!(world.wire.report().markers() > 0, "still captured");
            anyhow::Ok(())
        })?;
        killed(&mut world, &cast.client, &cast)?;
        talk(&live)
    });
    drop(live);
    checks.check("and it is out when nothing is relayed any more", || world.wait_in_mesh(&["late"], false));
    both_halves(&mut world, &cast, &mut checks);
    checks.end(&world);
}

fn both_halves(world: &mut World, cast: &Cast, checks: &mut Checks) {
    let nothing_in_plain = |world: &World| -> Result<()> {
        let report = world.wire.report();
        report.assert_no_marker()?;
        report.assert_only_tls_on(&[HBONE, SERVER_PORT])
    };
    checks.check("both halves of the callers' node: nothing leaves, and afterwards everything works", || {
        let agent = &mut world.mesh().agents[0];
        agent.proxy.kill9()?;
        agent.capture.kill9()?;
        world.wire.forget();
        for v6 in [false, true] {
            let found = outcome(&cast.client.netns, at(&cast.far, v6, ECHO), CLOSED);
            ensure!(!matches!(found, Outcome::Answered(_)), "{found:?}");
        }
        nothing_in_plain(world)?;
        let agent = &mut world.mesh().agents[0];
        agent.capture.restart()?;
        agent.proxy.restart()?;
        agent.proxy.wait_ready()?;
        wait::eventually(SOON, "an answer", || answers(&cast.client, cast.far_vip.at(false, 80)))?;
        world.assert_encrypted().map(drop)
    });
    checks.check("a node that has come up without rules and without an agent: refused at once, with a reason", || {
        let agent = &mut world.mesh().agents[1];
        agent.capture.kill9()?;
        agent.proxy.kill9()?;
        run(cast.far.command("sh").args(["-c", FORGET]))?;
        world.wire.forget();
        refused(&cast.client, cast.far_vip.at(false, 80))?;
        world.wait_refused(&cast.client, cast.far_vip.at(false, 80), (1, "tunnel-refused"))?;
        nothing_in_plain(world)
    });
}
