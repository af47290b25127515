//! The programs come and go under traffic: certificates are renewed, the control plane dies and returns, either half of
//! an agent dies and returns, and a node with a wrong token gets nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use weft_model::view::{CertificateRow, ConfigView, PodRow};
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Load, LoadPlan, Totals};
use weft_testkit::wait;

use crate::ask::{answers, at, open, refused, talk};
use crate::checks::Checks;
use crate::world::{Cast, ECHO, MARKER, SOON, Virtual, World};

const FAR_DENY: &str = "  targetRefs: [{group: \"\", kind: Pod, selector: {matchLabels: {app: far}}}]\n  action: Deny\n  \
                        rules: [{to: [{ports: [8080]}]}]";
/// How long a half stays away: dozens of connections meet its absence.
const ABSENT: Duration = Duration::from_millis(700);
/// How often both capture halves are killed.
const KILLS: usize = 3;

/// New connections over IPv4, kept ones over IPv6.
pub(crate) struct Loads {
    new: Load,
    kept: Load,
}

impl Loads {
    pub(crate) fn start(from: &Pod, to: Virtual) -> Result<Self> {
        let load = |v6, new_connections| {
            let (target, text) = (to.at(v6, 80), MARKER.to_owned());
            Load::start(&from.netns, LoadPlan { target, rate: 40, new_connections, patience: SOON, text })
        };
        let loads = Self { new: load(false, true)?, kept: load(true, false)? };
        loads.go_on()?;
        Ok(loads)
    }

    /// Both are answered from now on.
    pub(crate) fn go_on(&self) -> Result<()> {
        self.new.wait_more(10, SOON)?;
        self.kept.wait_more(10, SOON)
    }

    fn end(self) -> (Totals, Totals) {
        (self.new.stop(), self.kept.stop())
    }

    pub(crate) fn end_clean(self) -> Result<()> {
        let (new, kept) = self.end();
        new.assert_clean().context("new connections")?;
        kept.assert_clean().context("kept connections")
    }
}

#[test]
fn certificates_are_renewed_under_traffic() {
    enter_or_skip!();
    let (world, cast) = World::enrolled(&Extra::words("--certificate-life 4s", "", "")).unwrap();
    let mut checks = Checks::default();
    checks.check("a new serial on both nodes, while a live connection goes on and new ones succeed", || {
        let serials = |node| -> Result<Vec<String>> {
            let rows: Vec<CertificateRow> = world.agent(node, "certs")?;
            ensure!(rows.iter().all(|row| row.last_error.is_none()), "{rows:?}");
            Ok(rows.into_iter().filter(|row| row.state == "valid").map(|row| row.serial).collect())
        };
        let live = open(&cast.client, cast.far_vip.at(false, 80))?;
        talk(&live)?;
        let loads = Loads::start(&cast.client, cast.far_vip)?;
        let before = [serials(1)?, serials(2)?];
        ensure!(before.iter().all(|serials| !serials.is_empty()), "{before:?}");
        for (node, before) in [1, 2].into_iter().zip(&before) {
            wait::eventually(SOON, "other serials", || {
                talk(&live)?;
                let now = serials(node)?;
                ensure!(!now.is_empty() && now.iter().all(|serial| !before.contains(serial)), "{now:?}");
                anyhow::Ok(())
            })?;
        }
        // Long after the first ones have expired.
        wait::eventually(SOON, "renewed again", || {
            let now = serials(1)?;
            ensure!(world.metric(1, "weft_certificates_issued_total", &[])? >= 6.0, "{now:?}");
            anyhow::Ok(())
        })?;
        talk(&live)?;
        loads.end_clean()
    });
    checks.end(&world);
}

#[test]
fn the_control_plane_dies_and_returns() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    let loads = Loads::start(&cast.client, cast.far_vip).unwrap();
    for (name, signal) in [("kill -9", Signal::SIGKILL), ("SIGTERM", Signal::SIGTERM)] {
        checks.check(&format!("{name}: open and new connections go on without it"), || {
            let server = &mut world.mesh().server;
            server.process().signal(signal)?;
            server.process_mut().wait_end(SOON)?;
            loads.go_on()?;
            answers(&cast.other, at(&cast.near, true, ECHO))
        });
        checks.check(&format!("{name}: a policy written meanwhile is in force when it is back"), || {
            world.write_policy("meanwhile", FAR_DENY)?;
            answers(&cast.hermit, at(&cast.far, false, ECHO)).context("nobody can know of it yet")?;
            answers(&cast.hermit, cast.near_vip.at(false, 80))?;
            world.cluster.directory().delete("policy-meanwhile")?;
            world.write_policy("after", FAR_DENY.replace("8080", "8081").as_str())?;
            world.mesh().server.restart()?;
            world.mesh().server.wait_ready()?;
            world.wait_policy("after", true)?;
            refused(&cast.client, at(&cast.far, false, 8081))?;
            world.remove_policy("after")?;
            wait::eventually(SOON, "8081 open again", || answers_greeting(&cast))
        });
    }
    checks.check("not one request of the load failed", || loads.end_clean());
    checks.check("a node with a wrong token is refused with a clear reason, and gets nothing", || {
        wrong_token(&mut world)
    });
    checks.end(&world);
}

fn answers_greeting(cast: &Cast) -> Result<()> {
    weft_testkit::traffic::greeting(&cast.client.netns, at(&cast.far, false, 8081), 3)?;
    Ok(())
}

fn wrong_token(world: &mut World) -> Result<()> {
    let token = world.cluster.lab().directory().join("weft/node2/token");
    world.mesh().agents[1].proxy.terminate()?;
    fs::write(&token, "not-the-token")?;
    world.mesh().agents[1].proxy.restart()?;
    wait::eventually(SOON, "the refusal in words", || {
        let view: ConfigView = world.agent(2, "config")?;
        let plane = view.control_plane.context("an agent")?;
        let error = plane.last_error.unwrap_or_default();
        ensure!(!plane.connected && error.contains("unauthenticated"), "{error:?}");
        anyhow::Ok(())
    })?;
    let pods: Vec<PodRow> = world.agent(2, "pods")?;
    let certificates: Vec<CertificateRow> = world.agent(2, "certs")?;
    ensure!(pods.is_empty(), "it learnt of {pods:?}");
    ensure!(certificates.iter().all(|row| row.serial.is_empty()), "it got {certificates:?}");
    let log = world.mesh().server.process().output();
    ensure!(log.contains("unauthenticated"), "the server says nothing of it");
    Ok(())
}

#[test]
fn the_proxy_half_dies_and_returns() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    for (node, whose) in [(0, "the clients'"), (1, "the servers'")] {
        checks.check(
            &format!("kill -9 of {whose} proxy: nothing refused, what begins meanwhile waits and succeeds"),
            || {
                let loads = Loads::start(&cast.client, cast.far_vip)?;
                let killed = loads.new.elapsed();
                world.mesh().agents[node].proxy.kill9()?;
                let gone = loads.new.elapsed();
                wait::pause(ABSENT);
                world.mesh().agents[node].proxy.restart()?;
                world.mesh().agents[node].proxy.wait_ready()?;
                loads.go_on()?;
                let (new, _) = loads.end();
                let refused: Vec<_> = new.failures.iter().filter(|failure| failure.error.contains("refused")).collect();
                let late: Vec<_> = new.failures.iter().filter(|failure| failure.at > gone).collect();
                ensure!(refused.is_empty() && late.is_empty(), "killed {killed:?} to {gone:?}: {refused:?} {late:?}");
                ensure!(new.worst >= ABSENT / 2, "nobody waited: {:?}", new.worst);
                Ok(())
            },
        );
        checks.check(&format!("kill -9 of {whose} proxy: nothing in plain meanwhile"), || {
            world.assert_encrypted().map(drop)
        });
    }
    checks.check("SIGTERM of a proxy: afterwards everything works", || {
        world.mesh().agents[1].proxy.terminate()?;
        world.mesh().agents[1].proxy.restart()?;
        world.mesh().agents[1].proxy.wait_ready()?;
        answers(&cast.client, cast.far_vip.at(false, 80))
    });
    checks.end(&world);
}

#[test]
fn the_capture_half_dies_and_returns() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    checks.check("kill -9 of both capture halves, again and again: traffic goes on, pods are adopted again", || {
        // The proxy brings the new capture half the listeners that it has: none is closed, no connection is lost.
        let loads = Loads::start(&cast.client, cast.far_vip)?;
        for _ in 0..KILLS {
            for agent in &mut world.mesh().agents {
                agent.capture.kill9()?;
            }
            loads.kept.wait_more(10, SOON)?;
            for agent in &mut world.mesh().agents {
                agent.capture.restart()?;
            }
            wait::eventually(SOON, "all pods adopted", || {
                let states = [world.capture_states(1)?, world.capture_states(2)?].concat();
                let captured = states.iter().filter(|(_, state)| state == "captured").count();
                ensure!(captured == 4, "{states:?}");
                anyhow::Ok(())
            })?;
            loads.go_on()?;
        }
        loads.end_clean()
    });
    checks.check("pods are served as before, nothing in plain meanwhile", || {
        world.wait_in_mesh(&["client", "near", "far", "other"], true)?;
        answers(&cast.client, at(&cast.near, false, ECHO))?;
        world.assert_encrypted().map(drop)
    });
    checks.check("a pod that comes later is captured", || {
        world.pod("shop", "late", 1)?;
        world.wait_in_mesh(&["late"], true)
    });
    checks.check("both halves of a node at once", || {
        let agent = &mut world.mesh().agents[0];
        agent.proxy.kill9()?;
        agent.capture.kill9()?;
        agent.capture.restart()?;
        agent.proxy.restart()?;
        agent.proxy.wait_ready()?;
        wait::eventually(SOON, "an answer", || answers(&cast.client, cast.far_vip.at(false, 80)))?;
        answers(&cast.other, cast.near_vip.at(true, 80))
    });
    checks.end(&world);
}
