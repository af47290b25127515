//! A node that reboots: it vanishes without a word, and is back with its addresses and without any state. Its kernel resets
//! what it does not know; later an agent accepts again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::{Pod, run};
use weft_testkit::wait;

use crate::ask::{PROMPT, answers, at, open, talk};
use crate::checks::Checks;
use crate::world::{ECHO, SOON, World};

/// Nothing of an agent is left in a pod: no rules, and no sockets of a program that died while the wire was cut, which would
/// say that they end.
const FORGET: &str = "for p in iptables ip6tables; do for t in mangle filter; do $p -t $t -F; done; done; \
                      nft delete table inet weft_guard 2>/dev/null; ss -HKtan '( sport = :15008 or dport = :15008 )'";
/// The same for the node: its connection to the control plane.
const FORGET_NODE: &str = "ss -HKtan 'dport = :15012'";
/// From the readiness of the new agent to an answer: longer than an address that refused tunnels is left out (5 s).
const BACK: Duration = Duration::from_secs(8);

/// For how long a call waits for the agent of its only endpoint (the agents' --connect-timeout is 10 s).
const WAITS: Duration = Duration::from_secs(9);

/// Node 2 with these pods, up to the moment when its kernel runs again and its agent does not.
fn reboot(world: &mut World, pods: &[&Pod]) -> Result<()> {
    world.cluster.lab().wire().ip("link set node2 nomaster\n")?;
    let agent = &mut world.mesh().agents[1];
    agent.proxy.kill9()?;
    agent.capture.kill9()?;
    for pod in pods {
        run(pod.command("sh").args(["-c", FORGET]))?;
        let left = run(pod.command("ss").args(["-Htan", "( sport = :15008 or dport = :15008 )"]))?;
        ensure!(left.trim().is_empty(), "{} remembers {left}", pod.name);
    }
    run(world.cluster.lab().node(2).command("sh").args(["-c", FORGET_NODE]))?;
    world.cluster.lab().wire().ip("link set node2 master br0\n")
}

#[test]
fn a_node_that_reboots_ends_the_tunnels_of_its_old_life_at_once_and_is_called_again_when_its_agent_is_back() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let to = [cast.far_vip.at(false, 80), at(&cast.far, true, ECHO)];
    let live = to.map(|to| open(&cast.client, to).unwrap());
    live.iter().try_for_each(talk).unwrap();
    let (mut checks, mut late, mut asked) = (Checks::default(), Vec::new(), Instant::now());
    checks.check(
        "its kernel is back: the first word into an old tunnel ends it, and nothing goes past tunnels",
        || {
            reboot(&mut world, &[&cast.far, &cast.other])?;
            for stream in &live {
                let begun = Instant::now();
                ensure!(talk(stream).is_err(), "an old connection goes on");
                ensure!(begun.elapsed() < PROMPT, "only after {:?}", begun.elapsed());
            }
            asked = Instant::now();
            late = to.into_iter().map(|to| open(&cast.client, to)).collect::<Result<Vec<_>>>()?;
            world.assert_encrypted().map(drop)
        },
    );
    checks.check("its agent is back: calls are answered, over new tunnels", || {
        world.wire.forget();
        let agent = &mut world.mesh().agents[1];
        agent.capture.restart()?;
        agent.proxy.restart()?;
        agent.wait_ready()?;
        // Whoever called meanwhile has waited; on a machine that is so busy that this took too long, not for ever.
        if asked.elapsed() < WAITS {
            late.iter().try_for_each(talk)?;
        }
        for to in to {
            wait::eventually(BACK, "an answer", || answers(&cast.client, to))?;
        }
        wait::eventually(SOON, "the other way", || answers(&cast.other, cast.near_vip.at(false, 80)))?;
        world.wait_in_mesh(&["far", "other"], true)?;
        world.assert_encrypted().map(drop)
    });
    checks.end(&world);
}
