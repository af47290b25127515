//! What one pod may take of an agent, with real programs and real limits.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::{Pod, run};
use weft_testkit::wait;

use crate::ask::{answers, at};
use crate::checks::Checks;
use crate::world::{Apps, Cast, ECHO, SOON, World};

/// Descriptors of each proxy half here, and connections that a pod opens: each takes two.
const DESCRIPTORS: u32 = 1024;
const FLOOD: usize = 600;
/// Memory limit of each proxy half in the test of it, and how far above it the kernel may see it for a moment.
const MEMORY_MIB: f64 = 128.0;
const OVERSHOOT: f64 = 1.15;

/// Connections that were answered once and are held, and how many were not.
fn flood(from: &Pod, to: SocketAddr, count: usize) -> Result<(Vec<TcpStream>, usize)> {
    from.run(|| {
        let (mut held, mut shed) = (Vec::new(), 0);
        for _ in 0..count {
            let asked = TcpStream::connect_timeout(&to, SOON).and_then(|mut stream| {
                stream.set_read_timeout(Some(SOON))?;
                stream.write_all(b"?")?;
                stream.read_exact(&mut [0])?;
                Ok(stream)
            });
            match asked {
                Ok(stream) => held.push(stream),
                Err(_) => shed += 1,
            }
        }
        (held, shed)
    })
}

fn pid(world: &mut World, node: usize) -> u32 {
    world.mesh().agents[node].proxy.process().pid()
}

#[test]
#[ignore = "make soak: not proved often enough on a loaded machine"]
fn a_pod_uses_up_the_descriptors_and_the_agent_lives_on() {
    enter_or_skip!();
    let mut extra = Extra::words("", "", "--max-connections-per-pod 5000");
    extra.proxy_wrapper = vec!["prlimit".to_owned(), format!("--nofile={DESCRIPTORS}")];
    let (mut world, cast) = World::enrolled(&extra).unwrap();
    let mut checks = Checks::default();
    let before = [pid(&mut world, 0), pid(&mut world, 1)];
    let to = cast.far_vip.at(false, 80);
    // Outside of the mesh, so that the other agent has no part in it.
    let _apps = Apps::start(&cast.hermit).unwrap();
    let (held, shed) = flood(&cast.client, at(&cast.hermit, false, ECHO), FLOOD).unwrap();
    checks.check("the pod gets many, not all, and the agent says why", || {
        ensure!(held.len() > 200 && shed > 0, "{} held, {shed} shed", held.len());
        let refused = world.metric(1, "weft_refusals_total", &["reason=\"descriptor-limit\""])?;
        ensure!(refused >= 1.0, "{refused} refusals");
        let rows = world.refusals(1, "descriptor-limit")?;
        ensure!(!rows.is_empty(), "nothing in weft connections --denied");
        Ok(())
    });
    checks.check("its neighbour goes on, and so do the connections that it has", || {
        answers(&cast.near, to)?;
        for mut stream in held.iter().step_by(50) {
            stream.write_all(b"!")?;
            stream.read_exact(&mut [0])?;
        }
        Ok(())
    });
    drop(held);
    checks.check("when it gives them back it may open others; nothing was restarted, nothing spun", || {
        wait::eventually(SOON, "the pod is served again", || answers(&cast.client, to))?;
        ensure!(before == [pid(&mut world, 0), pid(&mut world, 1)], "a proxy half was restarted");
        for agent in &world.mesh().agents {
            let log = agent.proxy.process().output();
            ensure!(log.matches("cannot accept connections").count() <= 2, "said more than once for each worker");
            ensure!(!log.contains("panicked"), "{log}");
        }
        Ok(())
    });
    checks.end(&world);
}

/// Sets the soft limit of open files of a running proxy half. Only its own user may, and who is above limits.
fn limit_open_files(pid: u32, limit: u64) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().unwrap_or("0").to_owned()
    };
    let words = ["--reuid", &id("Uid:"), "--regid", &id("Gid:"), "--clear-groups", "prlimit"].map(str::to_owned);
    run(Command::new("setpriv").args(words).args([format!("--pid={pid}"), format!("--nofile={limit}:")])).map(drop)
}

/// The lowest number that no file of the process has: with it as the limit nothing can be opened. Waits until what was
/// open for earlier connections is closed, which would leave numbers below it.
fn first_free(pid: u32) -> Result<u64> {
    let open = || -> Result<BTreeSet<u64>> {
        let names = std::fs::read_dir(format!("/proc/{pid}/fd"))?.map(|entry| Ok(entry?.file_name()));
        names.map(|name: Result<_>| Ok(name?.to_string_lossy().parse()?)).collect()
    };
    wait::eventually(SOON, "its descriptors rest", || {
        let before = open()?;
        wait::pause(Duration::from_millis(200));
        ensure!(open()? == before, "it opens and closes");
        (0..).find(|number| !before.contains(number)).context("numbers do not end")
    })
}

#[test]
fn a_listener_without_descriptors_rests_sheds_and_recovers() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    let (to, pid) = (cast.far_vip.at(false, 80), pid(&mut world, 0));
    answers(&cast.client, to).unwrap();
    let before = world.metric(1, "process_max_fds", &[]).unwrap();
    checks.check("whoever waits for a descriptor that does not come is reset, not left waiting", || {
        limit_open_files(pid, first_free(pid)?)?;
        let (held, shed) = flood(&cast.client, to, 20)?;
        limit_open_files(pid, before as u64)?;
        ensure!(shed > 0, "{} held, {shed} shed", held.len());
        Ok(())
    });
    checks.check("it is said once, counted, and over when there are descriptors again", || {
        wait::eventually(SOON, "the pod is served again", || answers(&cast.client, to))?;
        ensure!(!world.refusals(1, "descriptor-limit")?.is_empty(), "no word in weft connections --denied");
        ensure!(world.metric(1, "weft_accept_pauses_total", &[])? >= 1.0, "no pause was counted");
        let log = world.mesh().agents[0].proxy.process().output();
        let said = log.matches("cannot accept connections for the moment").count();
        ensure!((1..=2).contains(&said), "said {said} times");
        Ok(())
    });
    checks.end(&world);
}

/// Writes to an echo whose answers nobody reads, until nothing more goes in.
fn stuff(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stalled = Duration::from_millis(50);
    let mut stream = TcpStream::connect_timeout(&to, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])?;
    stream.set_write_timeout(Some(stalled))?;
    let block = [0x5a; 64 << 10];
    while stream.write(&block).is_ok() {}
    Ok(stream)
}

/// Takes as many slow readers as the agent lets in, within a bound.
fn stuff_all(cast: &Cast, world: &World) -> Result<(Vec<TcpStream>, f64)> {
    let (mut held, mut highest) = (Vec::new(), 0.0_f64);
    let begin = Instant::now();
    while begin.elapsed() < SOON * 6 {
        let stuffed = cast.client.run(|| stuff(cast.far_vip.at(false, 80)))?;
        for node in [1, 2] {
            highest = highest.max(world.metric(node, "process_resident_memory_bytes", &[])?);
        }
        match stuffed {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    Ok((held, highest / f64::from(1 << 20)))
}

#[test]
#[ignore = "make soak: the allocator takes some ten seconds to give memory back"]
fn the_memory_limit_sheds_new_connections_and_is_kept() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::words("", "", &format!("--memory-limit {MEMORY_MIB}Mi"))).unwrap();
    let mut checks = Checks::default();
    let before = [pid(&mut world, 0), pid(&mut world, 1)];
    let (held, highest) = stuff_all(&cast, &world).unwrap();
    checks.check("slow readers are let in until memory is short, and no further", || {
        ensure!(held.len() > 5 && highest < MEMORY_MIB * OVERSHOOT, "{} held, {highest:.0} MiB at most", held.len());
        let refused = |node| world.metric(node, "weft_refusals_total", &["reason=\"memory-limit\""]);
        ensure!(refused(1)? + refused(2)? >= 1.0, "nothing was shed, {highest:.0} MiB at most");
        Ok(())
    });
    drop(held);
    checks.check("when they are gone others are let in; nothing was restarted", || {
        wait::eventually(SOON * 6, "the pod is served again", || answers(&cast.client, cast.far_vip.at(false, 80)))?;
        ensure!(before == [pid(&mut world, 0), pid(&mut world, 1)], "a proxy half was restarted");
        Ok(())
    });
    checks.end(&world);
}
