//! Pods in the mesh and pods outside of it: permissive and strict, both directions.

use anyhow::{Result, ensure};
use weft_model::view::PodRow;
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::wait;

use crate::ask::{answers, at, refused, seen_as};
use crate::checks::Checks;
use crate::world::{Cast, ECHO, PEER, SOON, World};

const STRICT: &str = "weft.dev/mtls";

#[test]
fn pods_outside_the_mesh_are_served_or_refused() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    checks.check("permissive: plaintext from outside is served, on both nodes, by pod address and ClusterIP", || {
        every_way(|v6| {
            answers(&cast.stranger, at(&cast.near, v6, ECHO))?;
            answers(&cast.stranger, at(&cast.far, v6, ECHO))?;
            answers(&cast.hermit, cast.near_vip.at(v6, 80))
        })
    });
    checks.check("permissive: the application sees the outsider's address", || {
        every_way(|v6| {
            seen_as(&cast.stranger, at(&cast.near, v6, PEER), cast.stranger.address(v6))?;
            seen_as(&cast.hermit, at(&cast.near, v6, PEER), cast.hermit.address(v6))
        })
    });
    checks.check("permissive: metrics say that it was plaintext", || {
        let labels = [r#"source_workload="stranger""#, r#"connection_security_policy="unknown""#];
        let count = world.metric(1, "istio_tcp_connections_opened_total", &labels)?;
        ensure!(count >= 2.0, "{count}");
        Ok(())
    });
    checks.check("a pod of the mesh reaches pods outside of it, in plain", || to_the_outside(&world, &cast));
    checks.check("strict: plaintext is refused with mtls-required", || strict(&mut world, &cast));
    checks.check("strict: the mesh's own traffic goes on", || {
        every_way(|v6| {
            answers(&cast.client, at(&cast.near, v6, ECHO))?;
            answers(&cast.client, cast.far_vip.at(v6, 80))
        })
    });
    checks.check("strict: the refusals are counted", || {
        let count = world.metric(1, "weft_refusals_total", &[r#"reason="mtls-required""#])?;
        ensure!(count >= 2.0, "{count}");
        Ok(())
    });
    checks.check("one permissive pod in a strict namespace is served", || {
        world.cluster.change_pod("near", |plan| plan.labels.push((STRICT.into(), "permissive".into())))?;
        wait::eventually(SOON, "near permissive", || answers(&cast.stranger, at(&cast.near, false, ECHO)))?;
        refused(&cast.stranger, at(&cast.far, false, ECHO))
    });
    checks.end(&world);
}

fn every_way(work: impl Fn(bool) -> Result<()>) -> Result<()> {
    [false, true].into_iter().try_for_each(work)
}

fn to_the_outside(world: &World, cast: &Cast) -> Result<()> {
    let _apps = crate::world::Apps::start(&cast.hermit)?;
    world.wire.forget();
    every_way(|v6| {
        answers(&cast.client, at(&cast.hermit, v6, ECHO))?;
        seen_as(&cast.client, at(&cast.hermit, v6, PEER), cast.client.address(v6))?;
        answers(&cast.other, at(&cast.hermit, v6, ECHO))
    })?;
    ensure!(world.wire.report().markers() > 0, "the marker was not seen on the wire, so how did it get there?");
    let rows: Vec<PodRow> = world.agent(1, "pods")?;
    ensure!(rows.iter().any(|row| row.name == "hermit" && !row.in_mesh), "{rows:?}");
    Ok(())
}

fn strict(world: &mut World, cast: &Cast) -> Result<()> {
    world.cluster.set_namespace_label("shop", STRICT, Some("strict"))?;
    let servers = [cast.near_apps.at(ECHO), cast.far_apps.at(ECHO)];
    for (pod, node) in [(&cast.near, 1), (&cast.far, 2)] {
        every_way(|v6| world.wait_refused(&cast.stranger, at(pod, v6, ECHO), (node, "mtls-required")))?;
    }
    let before = servers.map(|server| server.accepted());
    every_way(|v6| {
        refused(&cast.stranger, at(&cast.near, v6, ECHO))?;
        refused(&cast.hermit, cast.far_vip.at(v6, 80))
    })?;
    let after = servers.map(|server| server.accepted());
    ensure!(before == after, "the applications were reached: {before:?}, {after:?}");
    Ok(())
}
