//! An agent is upgraded in place under load: the old and the new proxy overlap on the same ports, what was open lives on in
//! the old one, and nobody is refused.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use weft_testkit::agents::{AgentFlags, Daemon, DaemonPlan, Extra, binary};
use weft_testkit::enter_or_skip;
use weft_testkit::mesh::Cluster;
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Load, LoadPlan};
use weft_testkit::wait;

use crate::checks::Checks;
use crate::world::{MARKER, SOON, Virtual, World};

/// Fails every upgrade whose old proxy does not end by itself when its connections have.
const DRAIN: &str = "--drain-deadline 60s --settle 100ms";
/// A program that does not run.
const BROKEN: &str = "#!/bin/sh\nexit 1\n";

/// `weft-node-agent run` on node1, from a program file of its own.
struct Run {
    daemon: Daemon,
    program: PathBuf,
}

impl Run {
    fn start(cluster: &Cluster) -> Result<Self> {
        let (lab, base) = (cluster.lab(), cluster.lab().directory().join("weft"));
        let flags = AgentFlags {
            node: "node1".into(),
            source: cluster.directory().root().to_owned(),
            handover: base.join("node1/handover.sock"),
            proxy_user: None,
            token: base.join("node1/token"),
            root: base.join("server/root-cert.pem"),
        };
        let program = lab.directory().join("agent");
        install(&program)?;
        let mut command = vec![program.clone().into_os_string(), "run".into()];
        command.extend(flags.proxy().into_iter().skip(1).map(Into::into));
        command.extend(["--source".into(), format!("dir:{}", flags.source.display()).into()]);
        command.extend(DRAIN.split(' ').map(Into::into));
        let mut daemon = Daemon::start(DaemonPlan {
            name: "run-node1".into(),
            netns: lab.node(1).netns().to_owned(),
            command,
            environment: Vec::new(),
            health: Some(AgentFlags::health()),
            logs: lab.directory().join("logs"),
        })?;
        daemon.wait_ready()?;
        Ok(Self { daemon, program })
    }

    /// The half's processes, the oldest first.
    fn children(&self, half: &str) -> Result<Vec<u32>> {
        let pid = self.daemon.process().pid();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut pids: Vec<u32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        pids.retain(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains(&format!("--only\0{half}"))
        });
        pids.sort_unstable();
        Ok(pids)
    }

    fn one(&self, half: &str) -> Result<u32> {
        let pids = self.children(half)?;
        ensure!(pids.len() == 1, "{half}: {pids:?}");
        Ok(pids[0])
    }
}

/// Another copy under the same name, as package managers replace programs.
fn install(program: &Path) -> Result<()> {
    let new = program.with_extension("new");
    fs::copy(binary("weft-node-agent")?, &new)?;
    Ok(fs::rename(new, program)?)
}

fn runs(pid: u32, program: &Path) -> Result<()> {
    let running = fs::metadata(format!("/proc/{pid}/exe"))?.ino();
    ensure!(running == fs::metadata(program)?.ino(), "{pid} runs another file");
    Ok(())
}

fn load(from: &Pod, to: Virtual, new_connections: bool, rate: u32) -> Result<Load> {
    let target = to.at(!new_connections, 80);
    let text = MARKER.to_owned();
    Load::start(&from.netns, LoadPlan { target, rate, new_connections, patience: SOON, text })
}

#[test]
fn run_is_upgraded_in_place_under_load_and_nobody_notices() {
    enter_or_skip!();
    let mut world = World::new().unwrap();
    let cast = world.cast().unwrap();
    world.cluster.enrol("shop", true).unwrap();
    world.start_on(&[2], &Extra::words("", "--settle 100ms", "")).unwrap();
    let mut run = Run::start(&world.cluster).unwrap();
    world.wait_steady(&["client", "near", "far", "other"]).unwrap();
    world.wire.forget();
    let mut checks = Checks::default();
    // Both directions: node1 as the callers' node and as the servers'.
    let both = |new, rate| {
        let out = load(&cast.client, cast.far_vip, new, rate).unwrap();
        (out, load(&cast.other, cast.near_vip, new, rate).unwrap())
    };
    let (new, kept) = (both(true, 150), both(false, 40));
    let go_on = |count: u64| -> Result<()> {
        [&new.0, &new.1].into_iter().try_for_each(|load| load.wait_more(count, SOON))?;
        [&kept.0, &kept.1].into_iter().try_for_each(|load| load.wait_more(20, SOON))
    };
    checks.check("a program that does not run changes nothing", || {
        go_on(20)?;
        let before = (run.one("capture")?, run.one("proxy")?);
        fs::remove_file(&run.program)?;
        fs::write(&run.program, BROKEN)?;
        fs::set_permissions(&run.program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        run.daemon.process().signal(Signal::SIGHUP)?;
        run.daemon.process_mut().wait_output(SOON, "nothing is changed")?;
        go_on(20)?;
        ensure!(before == (run.one("capture")?, run.one("proxy")?), "the halves were replaced");
        Ok(())
    });
    let mut old = 0;
    checks.check("SIGHUP: a new capture half, and a new proxy beside the old one, on the same ports", || {
        old = run.one("proxy")?;
        install(&run.program)?;
        let capture = run.one("capture")?;
        run.daemon.process().signal(Signal::SIGHUP)?;
        run.daemon.process_mut().wait_output(SOON * 2, "the successor is ready")?;
        let proxies = run.children("proxy")?;
        ensure!(proxies.len() == 2, "{proxies:?}");
        let fresh = *proxies.iter().find(|pid| **pid != old).context("a new one")?;
        runs(fresh, &run.program)?;
        ensure!(run.one("capture")? != capture, "the old capture half");
        runs(run.one("capture")?, &run.program)?;
        go_on(100)?;
        run.daemon.wait_ready()?;
        world.wait_in_mesh(&["client", "near"], true)
    });
    checks.check("what was open goes on in the old one, which ends when it has ended", || {
        ensure!(run.children("proxy")?.contains(&old), "the old one is gone");
        let (out, into) = kept;
        out.stop().assert_clean().context("kept, out")?;
        into.stop().assert_clean().context("kept, in")?;
        wait::eventually(SOON, "the end of the old one", || {
            ensure!(!run.children("proxy")?.contains(&old), "it lives");
            anyhow::Ok(())
        })?;
        [&new.0, &new.1].into_iter().try_for_each(|load| load.wait_more(100, SOON))
    });
    checks.check("not one of thousands of new connections failed, and nothing was in plain", || {
        let (out, into) = (new.0.stop(), new.1.stop());
        out.assert_clean().context("new, out")?;
        into.assert_clean().context("new, in")?;
        ensure!(out.ok + into.ok > 1000, "{} connections prove little", out.ok + into.ok);
        ensure!(out.worst.max(into.worst) < Duration::from_secs(3), "{:?} {:?}", out.worst, into.worst);
        world.assert_encrypted().map(drop)
    });
    checks.end(&world);
}
