//! Into the mesh and out of it: a namespace, a single pod, and what is left afterwards (nothing).

use anyhow::{Result, ensure};
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::{Pod, run};
use weft_testkit::wait;

use crate::ask::{answers, at};
use crate::checks::Checks;
use crate::world::{Cast, ECHO, HBONE, SOON, World};

/// What the kernel of a pod knows: rules of both families and of nft, policy routing, listeners.
const STATE: &str = "iptables-save | grep ^-A; ip6tables-save | grep ^-A; nft list ruleset 2>/dev/null | grep -i weft; \
                     for f in -4 -6; do ip $f rule; ip $f route show table all; done; ss -Hltn | awk '{print $4}' | sort -u";
const OPT_OUT: (&str, &str) = ("weft.dev/mesh", "disabled");

#[test]
fn namespaces_and_pods_join_and_leave() {
    enter_or_skip!();
    let mut world = World::new().unwrap();
    let cast = world.cast().unwrap();
    world.start(&Extra::words("", "--release-grace 0s", "")).unwrap();
    let pods = [&cast.client, &cast.near, &cast.far, &cast.other, &cast.stranger];
    let before = pods.map(|pod| state(pod).unwrap());
    let mut checks = Checks::default();
    checks.check("nobody enrolled: everybody talks in plain, no pod is touched", || {
        everybody(&cast)?;
        ensure!(world.wire.report().markers() > 0, "the marker was not on the wire");
        pods.iter().zip(&before).try_for_each(|(pod, state)| same(pod, state))
    });
    checks.check("a namespace is enrolled: all of its pods, and only those", || {
        world.cluster.enrol("shop", true)?;
        world.wait_in_mesh(&["client", "near", "far", "other"], true)?;
        world.wire.forget();
        answers(&cast.client, cast.far_vip.at(false, 80))?;
        answers(&cast.client, at(&cast.far, true, ECHO))?;
        world.assert_encrypted()?;
        everybody(&cast)?;
        ensure!(state(&cast.near)?.contains(&HBONE.to_string()), "near has no listener on {HBONE}");
        same(&cast.stranger, &before[4])
    });
    checks.check("a pod opts out: it is as before, and works both ways", || {
        world.cluster.change_pod("near", |plan| plan.labels.push((OPT_OUT.0.into(), OPT_OUT.1.into())))?;
        world.wait_in_mesh(&["near"], false)?;
        wait::eventually(SOON, "near untouched", || same(&cast.near, &before[1]))?;
        everybody(&cast)?;
        answers(&cast.near, cast.far_vip.at(true, 80))
    });
    checks.check("the others are still in the mesh", || {
        world.wait_in_mesh(&["client", "far", "other"], true)?;
        world.wire.forget();
        answers(&cast.client, cast.far_vip.at(false, 80))?;
        world.assert_encrypted().map(drop)
    });
    checks.check("the pod comes back", || {
        world.cluster.change_pod("near", |plan| plan.labels.retain(|(key, _)| key != OPT_OUT.0))?;
        world.wait_in_mesh(&["near"], true)?;
        everybody(&cast)
    });
    checks.check("the namespace leaves: everybody talks in plain, nothing is left in any pod", || {
        world.cluster.enrol("shop", false)?;
        world.wait_in_mesh(&["client", "near", "far", "other"], false)?;
        for (pod, state) in pods.iter().zip(&before) {
            wait::eventually(SOON, "an untouched pod", || same(pod, state))?;
        }
        world.wire.forget();
        everybody(&cast)?;
        ensure!(world.wire.report().markers() > 0, "the marker was not on the wire");
        Ok(())
    });
    checks.end(&world);
}

fn everybody(cast: &Cast) -> Result<()> {
    for v6 in [false, true] {
        for from in [&cast.client, &cast.other, &cast.stranger, &cast.hermit] {
            answers(from, at(&cast.near, v6, ECHO))?;
            answers(from, cast.near_vip.at(v6, 80))?;
            answers(from, cast.far_vip.at(v6, 80))?;
        }
    }
    Ok(())
}

fn state(pod: &Pod) -> Result<String> {
    run(pod.command("sh").args(["-c", &format!("{STATE}; true")]))
}

fn same(pod: &Pod, before: &str) -> Result<()> {
    let now = state(pod)?;
    let differs = |a: &str, b: &str| a.lines().filter(|line| !b.contains(line)).map(str::to_owned).collect::<Vec<_>>();
    ensure!(now == before, "{}: new {:?}, gone {:?}", pod.name, differs(&now, before), differs(before, &now));
    Ok(())
}
