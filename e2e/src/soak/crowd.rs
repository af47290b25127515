//! Load and abuse on a fresh mesh: 10,000 connections idle and active, one pod that opens 100,000, keeps 1,000 busy, or does not
//! read; what its neighbours feel, and what memory is left afterwards.
//!
//! What an abuse does to a neighbour is compared with the same abuse past the mesh, beside the same neighbour: whoever floods takes
//! processors from everybody, and that is the machine's part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_testkit::netns::spawn_in_netns;
use weft_testkit::wait;

use super::flags::{HerdKind, SoakFlags};
use super::hall::{Hall, Way};
use super::herd::Herd;
use super::neighbour::{Flood, median, p99, stuffed, times};
use super::stage::RECOVERY;
use crate::bench::figure::Scope;
use crate::bench::load::{Control, ECHO, Exchange, Timing, closed, drive};

/// Connections that are held, idle or active.
const MANY: usize = 10_000;
/// Connections that one pod opens as fast as it can.
const BURST: usize = 100_000;
/// Of those, how many are kept where nobody bounds them.
const KEPT: usize = 10_000;
/// Connections that one pod keeps busy.
const BUSY: usize = 1_000;
/// Active connections beside the idle ones.
const ACTIVE: usize = 100;
/// Connections of a pod that reads nothing.
const STUFFED: usize = 30;
/// Measurements of each kind, interleaved; the medians are compared.
const ROUNDS: usize = 3;
/// Questions to all held connections, each time.
const QUESTIONS: usize = 2;
/// How much worse a neighbour's p99 may be. Debug builds are only measured: there the agents' own work is ten times what it is,
/// and the processors are what everybody waits for.
const BOUND: f64 = if cfg!(debug_assertions) { f64::INFINITY } else { 2.0 };
/// Memory that may be left of the agents after all of this, beyond what fresh ones have: the allocator's pages in part use, and
/// what has grown for good (tables, the kernel's buffers are not in it). 48 MiB for four processes.
const LEFT: u64 = 48 << 20;
/// When the allocator has given back what nobody uses: it does so over 10 s.
const GIVE_BACK: Duration = Duration::from_secs(15);
/// Mebibyte.
const MEBIBYTE: f64 = (1 << 20) as f64;

/// Does all of it; says each figure as it is known, and fails at the end if one of them was too bad.
pub(super) fn crowd(flags: &SoakFlags, say: &dyn Fn(&str)) -> Result<()> {
    let hall = Hall::build(flags)?;
    let fresh = hall.memory()?;
    let mut findings = Vec::new();
    type Part = fn(&Hall) -> Result<Finding>;
    let parts: [(&str, Part); 6] = [
        ("two-nodes", |hall| idle_and_active(hall, ("two nodes", Scope::TwoNodes))),
        ("one-node", |hall| idle_and_active(hall, ("one node", Scope::SameNode))),
        ("flood", |hall| abused("that opens connections and holds 2,000", hall, flooded)),
        ("burst", |hall| abused("that opens 100,000 connections at once", hall, burst)),
        ("busy", |hall| abused("that keeps 1,000 connections busy", hall, busied)),
        ("unread", unread),
    ];
    for (_, part) in parts.iter().filter(|(name, _)| flags.only.as_ref().is_none_or(|only| only == name)) {
        let finding = part(&hall)?;
        say(&finding.text);
        findings.push(finding);
    }
    wait::pause(GIVE_BACK);
    let left = wait::eventually(RECOVERY, "memory is given back", || {
        let now = hall.memory()?;
        ensure!(now <= fresh + LEFT, "{} are left of both agents, {} when fresh", megabytes(now), megabytes(fresh));
        anyhow::Ok(now)
    })?;
    say(&format!("memory of both agents: fresh {}, after all of this {}", megabytes(fresh), megabytes(left)));
    let bad: Vec<&str> =
        findings.iter().filter(|finding| finding.ratio > finding.bound).map(|finding| &*finding.text).collect();
    ensure!(bad.is_empty(), "too much worse: {}", bad.join("; "));
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / MEBIBYTE)
}

/// A figure, and the words for it.
struct Finding {
    text: String,
    /// How much worse something is for a neighbour than without.
    ratio: f64,
    /// And how much it may be.
    bound: f64,
}

fn ratio(beside: Duration, alone: Duration) -> f64 {
    beside.as_secs_f64() / alone.as_secs_f64()
}

/// Holds many connections, idle while some active ones are measured, then active themselves.
fn idle_and_active(hall: &Hall, (name, scope): (&str, Scope)) -> Result<Finding> {
    let (possible, descriptors) = hall.on_one_node()?;
    let count = if scope == Scope::SameNode { MANY.min(possible) } else { MANY };
    let (mut alone, mut beside, mut opened, mut slowest, mut most) = (Vec::new(), Vec::new(), 0.0, 0.0_f64, 0);
    for _ in 0..ROUNDS {
        alone.push(hundred(hall)?);
        let mut herd = Herd::start(&hall.place.client, hall.place.server(scope).1, HerdKind::Hold, (count, count))?;
        (_, opened) = herd.answer().with_context(|| format!("{count} connections, {name}"))?;
        beside.push(hundred(hall)?);
        for _ in 0..QUESTIONS {
            let (answered, seconds) = herd.ask()?;
            ensure!(answered == count, "{name}: {answered} of {count} active connections were answered");
            slowest = slowest.max(seconds);
        }
        most = most.max(hall.memory()?);
        drop(herd);
        hall.place.wait_empty()?;
    }
    let (alone, beside) = (median(alone), median(beside));
    let ratio = ratio(beside, alone);
    let few =
        if count < MANY { format!(" (not {MANY}: the agent has {descriptors} descriptors)") } else { String::new() };
    let text = format!(
        "{count} connections{few}, {name}: opened in {opened:.1} s; p99 of {ACTIVE} busy ones of a neighbour {alone:.1?} without, \
         {beside:.1?} beside the idle ones ({ratio:.2} times); all asked at once, all answered within {slowest:.2} s; \
         memory of both agents {}",
        megabytes(most)
    );
    Ok(Finding { text, ratio, bound: BOUND })
}

/// The p99 of a hundred connections of the neighbour, each asking again as soon as it is answered.
fn hundred(hall: &Hall) -> Result<Duration> {
    let work = closed(Exchange::echo(), ACTIVE);
    let timing = Timing { warm_up: Duration::from_millis(300), window: Duration::from_secs(2) };
    let measured = drive(&hall.neighbour.netns, hall.echo(), (1, &work), timing, || Ok(()))?;
    let tally = measured.tally;
    ensure!(tally.failed == 0, "{:?}", tally.error);
    Ok(Duration::from_nanos(tally.latency.quantile(0.99).context("nothing was answered")?))
}

/// What a neighbour feels of an abuse that goes through the mesh, against the same past it.
fn abused(name: &str, hall: &Hall, abuse: fn(&Hall, Way) -> Result<(Duration, String)>) -> Result<Finding> {
    let [mut alone, mut past, mut through] = [const { Vec::new() }; 3];
    let mut last = [String::new(), String::new()];
    for _ in 0..ROUNDS {
        alone.push(hall.neighbours_p99()?);
        for (place, (way, times)) in [(Way::Past, &mut past), (Way::Through, &mut through)].into_iter().enumerate() {
            let (p99, words) = abuse(hall, way).with_context(|| format!("a pod {name}"))?;
            times.push(p99);
            last[place] = words;
        }
    }
    let [alone, past, through] = [alone, past, through].map(median);
    let ratio = ratio(through, past);
    let text = format!(
        "a pod {name}: its neighbour's p99 {alone:.1?} without, {past:.1?} where it does so past the mesh ({}), {through:.1?} where \
         it does so through it ({}): {ratio:.2} times",
        last[0], last[1]
    );
    Ok(Finding { text, ratio, bound: BOUND })
}

fn flooded(hall: &Hall, way: Way) -> Result<(Duration, String)> {
    let (pod, address) = hall.abuser(way);
    let flood = Flood::start(pod, SocketAddr::new(address, ECHO))?;
    let p99 = hall.neighbours_p99();
    let opened = flood.end();
    Ok((p99?, format!("{opened} opened")))
}

/// The neighbour asks until the burst is over.
fn burst(hall: &Hall, way: Way) -> Result<(Duration, String)> {
    let (pod, address) = hall.abuser(way);
    let keep = if way == Way::Past { KEPT } else { BURST };
    let mut herd = Herd::start(pod, address, HerdKind::Burst, (BURST, keep))?;
    let over = AtomicBool::new(false);
    let (times, answer) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| times(&hall.neighbour, hall.echo(), |_| over.load(Ordering::Relaxed)));
        let answer = herd.answer();
        over.store(true, Ordering::Relaxed);
        (asking.join().expect("a neighbour does not panic"), answer)
    });
    let (answered, seconds) = answer?;
    Ok((p99(times?), format!("{answered} of {BURST} answered in {seconds:.1} s")))
}

/// Measured at a server that the busy pod does not call. At the one that it does, whoever asks waits behind 1,000 others in the
/// server's own queue, which no mesh can mend: that is said, and not compared.
fn busied(hall: &Hall, way: Way) -> Result<(Duration, String)> {
    let (pod, address) = hall.abuser(way);
    let (control, work) = (Arc::new(Control::default()), closed(Exchange::echo(), BUSY));
    let inner = control.clone();
    let busy = spawn_in_netns(&pod.netns, move || work(&inner, SocketAddr::new(address, ECHO)))?;
    control.wait_warm(BUSY)?;
    control.measure();
    let begin = Instant::now();
    let p99 = hall.neighbours_p99_aside();
    let at_the_same = hall.neighbours_p99();
    let seconds = begin.elapsed().as_secs_f64();
    control.end();
    let tally = busy.join().map_err(|_| anyhow::anyhow!("a busy pod panicked"))?;
    ensure!(tally.failed == 0, "{:?}", tally.error);
    let answers = tally.latency.count() as f64 / seconds;
    Ok((
        p99?,
        format!("{answers:.0} answers a second; {:.1?} at the server that it calls through the mesh", at_the_same?),
    ))
}

/// A pod that does not read its answers hurts neither its own other calls, over the same tunnel, nor its neighbour's.
fn unread(hall: &Hall) -> Result<Finding> {
    let other = || hall.p99_of(&hall.place.client, hall.slow);
    let [mut alone, mut beside, mut own_alone, mut own_beside] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        alone.push(hall.neighbours_p99()?);
        own_alone.push(other()?);
        let held = stuffed(&hall.place.client, hall.slow, STUFFED)?;
        beside.push(hall.neighbours_p99()?);
        own_beside.push(other()?);
        drop(held);
    }
    let [alone, beside, own_alone, own_beside] = [alone, beside, own_alone, own_beside].map(median);
    let text = format!(
        "a pod does not read {STUFFED} full connections: its neighbour's p99 {alone:.1?} without, {beside:.1?} beside; its own other \
         call's to the same server {own_alone:.1?} without, {own_beside:.1?} beside"
    );
    Ok(Finding { text, ratio: ratio(beside, alone).max(ratio(own_beside, own_alone)), bound: BOUND })
}
