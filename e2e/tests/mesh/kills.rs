//! The capture half, and both halves, killed in every phase of a pod's joining and leaving, with the wire of its node looked
//! at: what a pod that was captured says leaves only inside TLS, whoever is away, and a successor goes on where the dead one
//! was.
//!
//! The phase is read from the rules in the pod's namespace, before the kill and after it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::{Extra, SERVER_PORT};
use weft_testkit::enter_or_skip;
use weft_testkit::mesh::PodPlan;
use weft_testkit::netns::{Pod, run};
use weft_testkit::traffic::{connect, echo};
use weft_testkit::wait;
use weft_testkit::wire::Protocol;

use crate::ask::{answers, at, open, talk};
use crate::checks::Checks;
use crate::world::{Apps, Cast, ECHO, HBONE, MARKER, SOON, World};

const OPT_OUT: (&str, &str) = ("weft.dev/mesh", "disabled");
/// A phase that ends by the clock lasts this long: far longer than the kill that follows the sight of it.
const SETTLE: &str = "--settle 1s";
/// A call that nobody serves is given up after this.
const GIVE_UP: Duration = Duration::from_millis(400);

/// Phases of joining and leaving, as `node-agent/src/capture/ruleset.rs` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    EnrolOut,
    Enrol,
    Steady,
    ReleaseIn,
    Release,
}

/// What stands in a pod, with a line between the parts; the guard where there is nft.
const RULES: &str = "iptables-save -t mangle; echo %%; ip6tables-save -t mangle; echo %%; ip6tables-save -t filter; echo %%; \
                     nft list table inet weft_guard 2>/dev/null; true";

/// The rules of a pod, as they are committed one table after the other.
struct Rules {
    v4: Option<Phase>,
    v6: Option<Phase>,
    /// Whether the tables that are committed last in some phases let old connections past.
    lets_past: [bool; 2],
    has_guard: bool,
}

impl Rules {
    fn read(pod: &Pod) -> Result<Self> {
        let text = run(pod.command("sh").args(["-c", RULES]))?;
        let parts: Vec<&str> = text.split("%%").collect();
        ensure!(parts.len() == 4, "{text}");
        Ok(Self {
            v4: phase_of(parts[0]),
            v6: phase_of(parts[1]),
            lets_past: [parts[2].contains("0x114"), parts[3].contains("0x00000114")],
            has_guard: !parts[3].trim().is_empty(),
        })
    }

    /// The phase, unless they are between two.
    fn whole(&self) -> Option<Option<Phase>> {
        let passes = !matches!(self.v4, None | Some(Phase::Steady));
        let same = self.v4 == self.v6 && self.lets_past[0] == passes;
        (same && (!self.has_guard || self.lets_past[1] == passes)).then_some(self.v4)
    }
}

/// None: no rules of ours.
fn phase_of(mangle: &str) -> Option<Phase> {
    let sees_syn = |chain: &str, bit: &str| {
        let mark = format!("--set-xmark {bit}/0x600");
        mangle.lines().any(|line| line.starts_with(&format!("-A {chain} ")) && line.contains(&mark))
    };
    let (relayed, direct) = ("0x200", "0x400");
    let joins = mangle.contains("! --mark 0x200/0x600");
    match () {
        () if !mangle.contains("-A WEFT_POST ") => None,
        () if sees_syn("WEFT_OUT", direct) => Some(Phase::Release),
        () if sees_syn("WEFT_PRE", direct) && joins => Some(Phase::EnrolOut),
        () if sees_syn("WEFT_PRE", direct) => Some(Phase::ReleaseIn),
        () if sees_syn("WEFT_PRE", relayed) => Some(Phase::Enrol),
        () => Some(Phase::Steady),
    }
}

/// How much of a phase stands when the kill comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The first of its tables.
    Begun,
    /// All of them.
    Whole,
}

fn until(pod: &Pod, wanted: Option<Phase>, moment: Moment) -> Result<()> {
    wait::eventually(SOON, &format!("{} in {wanted:?}, {moment:?}", pod.name), || {
        let rules = Rules::read(pod)?;
        ensure!(rules.v4 == wanted, "it is in {:?}", rules.v4);
        ensure!(moment == Moment::Begun || rules.whole().is_some(), "between two phases");
        anyhow::Ok(())
    })
}

/// Whom a kill hits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victims {
    Capture,
    Both,
}

/// One kill.
#[derive(Clone, Copy, Debug)]
struct Hit {
    victims: Victims,
    moment: Moment,
}

/// A mesh with a pod on node 1 that joins and leaves by its label.
struct Scene {
    world: World,
    cast: Cast,
    late: Pod,
    selected: bool,
    _apps: Apps,
}

impl Scene {
    fn new(selected: bool) -> Result<Self> {
        let mut world = World::new()?;
        let cast = world.cast()?;
        world.cluster.enrol("shop", true)?;
        let mut plan = PodPlan::new("shop", "late", "late", 1);
        if !selected {
            plan.labels.push((OPT_OUT.0.into(), OPT_OUT.1.into()));
        }
        let late = world.cluster.pod(plan)?;
        let apps = Apps::start(&late)?;
        world.start(&Extra::words("", SETTLE, ""))?;
        world.wait_steady(&["client", "near", "far", "other"])?;
        Ok(Self { world, cast, late, selected, _apps: apps })
    }

    fn select(&mut self, selected: bool) -> Result<()> {
        self.selected = selected;
        self.world.cluster.change_pod("late", |plan| {
            plan.labels.retain(|(key, _)| key != OPT_OUT.0);
            if !selected {
                plan.labels.push((OPT_OUT.0.into(), OPT_OUT.1.into()));
            }
        })
    }

    /// Both families, to a pod of the other node.
    fn calls_out(&self, from: &Pod) -> Vec<(Pod, SocketAddr)> {
        [self.cast.far_vip.at(false, 80), at(&self.cast.far, true, ECHO)].map(|to| (from.clone(), to)).into()
    }

    /// As [`Self::calls_out`], and to the pod that joins.
    fn calls_out_and_in(&self) -> Vec<(Pod, SocketAddr)> {
        let calls_in = [false, true].map(|v6| (self.cast.other.clone(), at(&self.late, v6, ECHO)));
        [self.calls_out(&self.late), calls_in.into()].concat()
    }

    /// Kills the victims while the pod is in `phase`, and tries the calls: while nobody is there they may come to nothing,
    /// when the successor is there they are answered, and none is ever in plain.
    fn kill(&mut self, hit: Hit, phase: Phase, calls: &[(Pod, SocketAddr)]) -> Result<()> {
        self.strike(hit, phase, calls)?;
        self.restart(hit.victims)?;
        for (from, to) in calls {
            wait::eventually(SOON, "an answer", || answers(from, *to))?;
        }
        self.world.assert_encrypted().context("when the successor is there").map(drop)
    }

    /// As [`Self::kill`], and nobody comes back.
    fn strike(&mut self, hit: Hit, phase: Phase, calls: &[(Pod, SocketAddr)]) -> Result<()> {
        until(&self.late, Some(phase), hit.moment)?;
        self.kill9(hit.victims)?;
        let rules = Rules::read(&self.late)?;
        ensure!(rules.v4 == Some(phase), "killed in {:?}, not in {phase:?}", rules.v4);
        ensure!(hit.moment == Moment::Begun || rules.whole().is_some(), "killed between two phases");
        self.world.wire.forget();
        std::thread::scope(|scope| {
            for (from, to) in calls {
                scope.spawn(|| attempt(from, *to));
            }
        });
        nothing_in_plain(&self.world).context("while nobody is there")
    }

    fn kill9(&mut self, victims: Victims) -> Result<()> {
        let agent = &mut self.world.mesh().agents[0];
        if victims == Victims::Both {
            agent.proxy.kill9()?;
        }
        agent.capture.kill9()?;
        // The next one that is there is the successor's.
        Ok(fs::remove_file(self.world.cluster.lab().directory().join("weft/node1/capture-status.json"))?)
    }

    /// Waits until all pods of the node are adopted.
    fn restart(&mut self, victims: Victims) -> Result<()> {
        let agent = &mut self.world.mesh().agents[0];
        agent.capture.restart()?;
        if victims == Victims::Both {
            agent.proxy.restart()?;
            agent.wait_ready()?;
        }
        wait::eventually(SOON, "all pods adopted", || {
            let states = self.world.capture_states(1)?;
            // A pod that has left is not shown.
            let late = states.iter().find(|(name, _)| name == "late").map_or("clean", |(_, state)| state);
            let captured = states.iter().filter(|(name, state)| name != "late" && state == "captured").count();
            let taken = !self.selected || matches!(late, "enrolling" | "captured");
            ensure!(taken && captured == 2, "{states:?}");
            anyhow::Ok(())
        })
    }
}

/// A call with the marker; whatever becomes of it.
fn attempt(from: &Pod, to: SocketAddr) {
    let Ok(stream) = connect(&from.netns, to, GIVE_UP) else { return };
    if stream.set_read_timeout(Some(GIVE_UP)).is_ok() {
        let _lost = echo(&stream, MARKER.as_bytes());
    }
}

/// No marker, no attempt on another port than the mesh's own, and there nothing but TLS.
fn nothing_in_plain(world: &World) -> Result<()> {
    let report = world.wire.report();
    report.assert_no_marker()?;
    let tcp = report.flows.iter().filter(|flow| flow.protocol == Protocol::Tcp);
    let plain = tcp.filter(|flow| flow.not_tls() || ![HBONE, SERVER_PORT].iter().any(|port| flow.has_port(*port)));
    let plain: Vec<String> = plain.map(ToString::to_string).collect();
    ensure!(plain.is_empty(), "{plain:#?}");
    Ok(())
}

fn joins(hit: Hit) -> Result<()> {
    let mut scene = Scene::new(false)?;
    // From outside the mesh and older than the rules: it keeps the pod in the second phase.
    let old = open(&scene.cast.stranger, at(&scene.late, false, ECHO))?;
    talk(&old)?;
    let mut checks = Checks::default();
    checks.check("selected while nobody is there: captured by the successor", || {
        scene.kill9(hit.victims)?;
        scene.select(true)?;
        ensure!(Rules::read(&scene.late)?.v4.is_none(), "somebody captured it");
        scene.restart(hit.victims)
    });
    checks.check("its own calls are captured, its callers have not heard yet", || {
        scene.kill(hit, Phase::EnrolOut, &scene.calls_out(&scene.late))
    });
    checks.check("everything new is captured", || {
        until(&scene.late, Some(Phase::Enrol), Moment::Begun)?;
        scene.kill(hit, Phase::Enrol, &scene.calls_out_and_in())
    });
    if hit.moment == Moment::Whole {
        checks.check("an old connection goes on", || talk(&old));
    }
    drop(old);
    checks.check("captured", || {
        scene.kill(hit, Phase::Steady, &scene.calls_out_and_in())?;
        scene.world.wait_in_mesh(&["late"], true)
    });
    checks.end(&scene.world);
    Ok(())
}

#[test]
fn the_capture_half_killed_in_every_phase_of_joining_leaves_nothing_in_plain() {
    enter_or_skip!();
    joins(Hit { victims: Victims::Capture, moment: Moment::Whole }).unwrap();
}

#[test]
fn the_capture_half_killed_between_the_tables_of_each_phase_leaves_nothing_in_plain() {
    enter_or_skip!();
    joins(Hit { victims: Victims::Capture, moment: Moment::Begun }).unwrap();
}

#[test]
fn both_halves_killed_in_every_phase_of_joining_leave_nothing_in_plain() {
    enter_or_skip!();
    joins(Hit { victims: Victims::Both, moment: Moment::Whole }).unwrap();
}

fn leaves(victims: Victims) -> Result<()> {
    let hit = Hit { victims, moment: Moment::Whole };
    let mut scene = Scene::new(true)?;
    until(&scene.late, Some(Phase::Steady), Moment::Whole)?;
    let mut checks = Checks::default();
    let live = open(&scene.late, scene.cast.far_vip.at(true, 80))?;
    checks.check("calls to it go direct, its own are still captured", || {
        talk(&live)?;
        scene.select(false)?;
        scene.strike(hit, Phase::ReleaseIn, &scene.calls_out(&scene.late))?;
        scene.restart(victims)
    });
    if victims == Victims::Capture {
        checks.check("its own calls go direct, what is relayed goes on, and its neighbour is captured", || {
            talk(&live).context("killed in the first phase")?;
            scene.kill(hit, Phase::Release, &scene.calls_out(&scene.cast.client))?;
            talk(&live)
        });
        checks.check("both halves: its neighbour is captured", || {
            let both = Hit { victims: Victims::Both, ..hit };
            scene.kill(both, Phase::Release, &scene.calls_out(&scene.cast.client))
        });
    }
    checks.check("it is out when nothing is relayed any more", || {
        ensure!(talk(&live).is_err(), "what was relayed outlived its relay");
        until(&scene.late, None, Moment::Whole)?;
        scene.world.wait_in_mesh(&["late"], false)
    });
    checks.end(&scene.world);
    Ok(())
}

#[test]
fn the_capture_half_killed_in_every_phase_of_leaving_leaves_nothing_in_plain_that_is_captured() {
    enter_or_skip!();
    leaves(Victims::Capture).unwrap();
}

#[test]
fn both_halves_killed_while_a_pod_leaves_leave_nothing_in_plain_that_is_captured() {
    enter_or_skip!();
    leaves(Victims::Both).unwrap();
}
