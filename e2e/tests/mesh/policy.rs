//! Authorization at L4: who may reach which port of `far`, for each kind of condition; shadow mode; live connections.
//!
//! The four who ask: `client` (another node, a tunnel), `other` (the same node), `tool` of the namespace `ops` (a tunnel),
//! and `hermit`, who is not in the mesh (plaintext).

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::Pod;
use weft_testkit::traffic::Outcome;
use weft_testkit::wait;

use crate::ask::{at, find, open, talk};
use crate::checks::Checks;
use crate::world::{Apps, Cast, ECHO, GREET, SOON, World};

/// From the file to the cut of a live connection. The promise is one second; 0.1 s were measured.
const CUT: Duration = Duration::from_secs(1);

const FAR: &str = "  targetRefs: [{group: \"\", kind: Pod, selector: {matchLabels: {app: far}}}]\n";

/// Who asks.
struct Askers<'a> {
    pods: [&'a Pod; 4],
    far: &'a Pod,
    far_apps: &'a Apps,
}

/// Answers to `client`, `other`, `tool`, `hermit`, at ECHO and then at GREET; `#` is an answer, `.` a refusal.
type Picture = &'static str;

/// Name, spec behind FAR, what is expected.
const MATRIX: [(&str, &str, Picture); 13] = [
    ("allow-account", "  action: Allow\n  rules: [{from: [{serviceAccounts: [shop/client]}]}]", "#... #..."),
    ("deny-account", "  action: Deny\n  rules: [{from: [{serviceAccounts: [shop/client]}]}]", ".### .###"),
    ("allow-namespace", "  rules: [{from: [{namespaces: [ops]}]}]", "..#. ..#."),
    ("deny-namespace", "  action: Deny\n  rules: [{from: [{namespaces: [shop]}]}]", "..## ..##"),
    ("allow-identity", "  rules: [{from: [{identities: ['spiffe://cluster.local/ns/shop/sa/other']}]}]", ".#.. .#.."),
    ("allow-cidr", "  rules: [{from: [{cidrs: [HERMIT/32]}]}]", "...# ...#"),
    ("deny-cidr", "  action: Deny\n  rules: [{from: [{cidrs: [10.244.1.0/24]}]}]", ".#.# .#.#"),
    ("allow-port", "  rules: [{to: [{ports: [8080]}]}]", "#### ...."),
    ("deny-not-port", "  action: Deny\n  rules: [{to: [{notPorts: [8081]}]}]", ".... ####"),
    ("allow-not-from", "  rules: [{notFrom: [{namespaces: [shop]}]}]", "..#. ..#."),
    ("deny-not-account", "  action: Deny\n  rules: [{from: [{notServiceAccounts: [shop/client]}]}]", "#... #..."),
    ("allow-not-cidr", "  rules: [{from: [{notCidrs: [10.244.1.0/24]}]}]", ".#.# .#.#"),
    (
        "account-and-port",
        "  rules: [{from: [{serviceAccounts: [shop/client, shop/other]}], to: [{ports: [8081]}]}]",
        ".... ##..",
    ),
];

#[test]
fn policies_decide_who_may_reach_whom() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let tool = operations(&mut world).unwrap();
    let askers =
        Askers { pods: [&cast.client, &cast.other, &tool, &cast.hermit], far: &cast.far, far_apps: &cast.far_apps };
    let mut checks = Checks::default();
    checks.check("without a policy everybody is answered", || pictured(&askers, "#### ####"));
    for (name, spec, expected) in MATRIX {
        checks.check(name, || {
            let spec = format!("{FAR}{}", spec.replace("HERMIT", &cast.hermit.v4.to_string()));
            world.apply_policy(name, &spec)?;
            let result = pictured(&askers, expected);
            world.remove_policy(name)?;
            result
        });
    }
    checks.check("default-deny in one line, for the whole namespace", || {
        world.write_policy("default-deny", "  {}")?;
        pictured(&askers, ".... ....")?;
        wait::eventually(SOON, "near refuses as well", || {
            let found = find(&cast.client, at(&cast.near, false, ECHO));
            ensure!(found == Outcome::Reset, "{found:?}");
            anyhow::Ok(())
        })?;
        world.wait_refused(&cast.client, at(&cast.far, false, ECHO), (2, "policy-not-allowed"))?;
        world.remove_policy("default-deny")?;
        pictured(&askers, "#### ####")
    });
    checks.check("deny is read before allow", || {
        world.apply_policy("allow-shop", &format!("{FAR}  rules: [{{from: [{{namespaces: [shop]}}]}}]"))?;
        world.apply_policy(
            "deny-other",
            &format!("{FAR}  action: Deny\n  rules: [{{from: [{{serviceAccounts: [shop/other]}}]}}]"),
        )?;
        let result = pictured(&askers, "#... #...");
        world.wait_refused(&cast.other, at(&cast.far, false, ECHO), (2, "policy-denied"))?;
        world.remove_policy("allow-shop")?;
        world.remove_policy("deny-other")?;
        result
    });
    checks.check("a shadowed policy refuses nothing and is counted", || shadowed(&world, &askers));
    checks.check("refusals are counted by their reasons", || {
        for reason in ["policy-denied", "policy-not-allowed"] {
            let label = format!("reason=\"{reason}\"");
            let count = world.metric(2, "weft_refusals_total", &[&label])?;
            ensure!(count >= 2.0, "{reason}: {count}");
        }
        Ok(())
    });
    checks.end(&world);
}

#[test]
fn live_connections_are_judged_again() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    checks.check("a new Deny cuts open connections: tunnel, same node, plaintext; the others go on", || {
        let spec = format!("{FAR}  action: Deny\n  rules: [{{to: [{{ports: [8080]}}]}}]");
        cut_by(&cast, || world.write_policy("close-far", &spec))?;
        world.remove_policy("close-far")
    });
    checks.check("labels that bring the pod under a policy cut its connections", || {
        let locked = "  targetRefs: [{group: \"\", kind: Pod, selector: {matchLabels: {tier: locked}}}]\n";
        world.write_policy("locked", &format!("{locked}  action: Deny\n  rules: [{{to: [{{ports: [8080]}}]}}]"))?;
        wait::eventually(SOON, "the policy on node2", || {
            let rows: Vec<weft_model::view::PolicyRow> = world.agent(2, "policies")?;
            ensure!(rows.iter().any(|row| row.name == "locked"), "{rows:?}");
            anyhow::Ok(())
        })?;
        cut_by(&cast, || world.cluster.change_pod("far", |plan| plan.labels.push(("tier".into(), "locked".into()))))
    });
    checks.check("what was cut is logged as policy-changed", || {
        wait::eventually(SOON, "the reasons", || {
            let reasons = world.refusals(2, "policy-changed")?;
            ensure!(reasons.len() >= 6, "{reasons:?}");
            anyhow::Ok(())
        })
    });
    checks.end(&world);
}

/// `tool` in the namespace `ops`, in the mesh, on node1.
fn operations(world: &mut World) -> Result<Pod> {
    world.cluster.namespace("ops", &[("weft.dev/mesh", "enabled")])?;
    let tool = world.pod("ops", "tool", 1)?;
    world.wait_in_mesh(&["tool"], true)?;
    Ok(tool)
}

/// Waits until the answers are as expected; all of them have to be so in one round.
fn pictured(askers: &Askers<'_>, expected: Picture) -> Result<()> {
    wait::eventually(SOON, "the expected answers", || {
        let before = askers.far_apps.at(ECHO).accepted();
        let mut picture = String::new();
        for port in [ECHO, GREET] {
            for pod in askers.pods {
                picture.push(match find(pod, at(askers.far, false, port)) {
                    Outcome::Answered(_) => '#',
                    Outcome::Refused | Outcome::Reset => '.',
                    found => return Err(anyhow::anyhow!("{} at {port}: {found:?}", pod.name)),
                });
            }
            if port == ECHO {
                picture.push(' ');
            }
        }
        ensure!(picture == expected, "{picture} instead of {expected} (client, other, tool, hermit; 8080, 8081)");
        // Nothing of a refused connection may reach the application.
        let answered = picture.chars().take(4).filter(|answer| *answer == '#').count() as u64;
        let arrived = askers.far_apps.at(ECHO).accepted() - before;
        ensure!(arrived == answered, "{arrived} connections arrived for {answered} answers");
        anyhow::Ok(())
    })
}

fn shadowed(world: &World, askers: &Askers<'_>) -> Result<()> {
    world.apply_policy(
        "try-it",
        &format!("{FAR}  action: Deny\n  mode: Shadow\n  rules: [{{to: [{{ports: [8080]}}]}}]"),
    )?;
    let label = [r#"policy="shop/try-it""#];
    let before = world.metric(2, "weft_shadow_denials_total", &label)?;
    pictured(askers, "#### ####")?;
    wait::eventually(SOON, "four shadow denials", || {
        let count = world.metric(2, "weft_shadow_denials_total", &label)? - before;
        ensure!(count >= 4.0, "{count}");
        anyhow::Ok(())
    })?;
    world.remove_policy("try-it")
}

/// Opens a connection on each way to `far`, and one each to ports and pods that are not concerned; `change` cuts the
/// former within a second.
fn cut_by(cast: &Cast, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let ways = |port| {
        [
            (&cast.client, at(&cast.far, false, port)),
            (&cast.other, at(&cast.far, true, port)),
            (&cast.hermit, at(&cast.far, false, port)),
        ]
    };
    let held = |(pod, to): (&Pod, SocketAddr)| -> Result<TcpStream> {
        let stream = open(pod, to)?;
        talk(&stream)?;
        Ok(stream)
    };
    let concerned = ways(ECHO).into_iter().map(held).collect::<Result<Vec<_>>>().context("before")?;
    let spared = open(&cast.client, at(&cast.near, false, ECHO))?;
    talk(&spared)?;
    let start = Instant::now();
    change()?;
    for (mut stream, (pod, to)) in concerned.iter().zip(ways(ECHO)) {
        let ended = stream.read(&mut [0; 64]);
        let took = start.elapsed();
        let reset = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        ensure!(reset && took < CUT, "{} to {to} ended with {ended:?} after {took:?}", pod.name);
    }
    talk(&spared).context("a connection that no policy concerns")
}
