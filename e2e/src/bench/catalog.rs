//! Does cost grow with the mesh? The same connections with a catalog of 10 and of 100,000 workloads, and what a change of
//! one workload costs in either.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::SERVER_ADMIN;
use weft_testkit::netns::in_netns;
use weft_testkit::wait;

use super::account::resident;
use super::figure::{Peer, Scope};
use super::flags::{BenchFlags, Part};
use super::place::{NAMESPACE, Place, metric};
use super::results::{Results, Sample};
use super::rounds::Load;
use super::show::Show;
use super::statistics::median;

/// Workloads besides those of the laboratory.
const SMALL: u32 = 10;
const LARGE: u32 = 100_000;
/// Documents of one file.
const PER_FILE: u32 = 1000;
/// From writing a catalog to both agents having it.
const KNOWN: Duration = Duration::from_secs(120);
/// From a change to both agents having it.
const APPLIED: Duration = Duration::from_secs(30);
/// Changes, of which the median counts.
const CHANGES: usize = 5;
/// Between two changes under load: each is over before the next.
const BETWEEN: Duration = Duration::from_millis(250);
/// Agents.
const AGENTS: f64 = 2.0;

/// The names of one size's figures.
struct Names {
    connections: [&'static str; 2],
    change: [&'static str; 3],
    /// Number of the first change: each differs from the one before.
    first: usize,
}

const SMALL_NAMES: Names = Names {
    connections: ["small-connections", "small-connections-cpu"],
    change: ["small-change-pushes", "small-change-bytes", "small-change-applied"],
    first: 0,
};
const LARGE_NAMES: Names = Names {
    connections: ["large-connections", "large-connections-cpu"],
    change: ["large-change-pushes", "large-change-bytes", "large-change-applied"],
    first: CHANGES,
};

/// Measures a fresh place.
///
/// # Errors
/// A load fails. A catalog that does not arrive is a note.
pub fn catalog(place: &Place, flags: &BenchFlags, show: &Show, results: &mut Results) -> Result<()> {
    for (count, names) in [(SMALL, SMALL_NAMES), (LARGE, LARGE_NAMES)] {
        show.progress(&format!("catalog: writing {count} workloads"));
        let begin = Instant::now();
        if let Err(error) = fill(place, count) {
            results.note(format!("a catalog of {count} workloads: {error:#}"));
            return Ok(());
        }
        show.progress(&format!("catalog: both agents have it after {:.1?}", begin.elapsed()));
        size(place, flags, &names, show, results)?;
    }
    show.progress("catalog: echo while workloads change");
    let mut add = |key, value| results.add(Scope::Agent, key, Peer::Weft, Sample { value, others: 0.0 });
    add("large-rss", resident(&place.agents(Some(1)))? as f64 / f64::from(1 << 20));
    add("large-still-echo", echo(place, flags.window() * 2, false)?);
    add("large-change-echo", echo(place, flags.window() * 2, true)?);
    Ok(())
}

fn size(place: &Place, flags: &BenchFlags, names: &Names, show: &Show, results: &mut Results) -> Result<()> {
    let mut add = |key, value| results.add(Scope::Agent, key, Peer::Weft, Sample { value, others: 0.0 });
    let load = Load::of(Part::Connections, flags.piece()).context("a load")?;
    for _ in 0..flags.rounds() {
        let measured = load.run(place, Scope::TwoNodes, flags.window())?;
        place.wait_empty()?;
        let done = measured.tally.latency.count() as f64;
        add(names.connections[0], done / measured.seconds);
        add(names.connections[1], measured.after.0.agents_since(&measured.before.0) * 1e6 / done);
    }
    show.progress("catalog: one workload changes");
    let numbers = names.first..names.first + CHANGES;
    let changes: Vec<Change> = numbers.map(|number| change(place, number)).collect::<Result<_>>()?;
    let middle = |of: fn(&Change) -> f64| median(&changes.iter().map(of).collect::<Vec<_>>()).unwrap_or_default();
    add(names.change[0], middle(|change| change.responses) / AGENTS);
    add(names.change[1], middle(|change| change.bytes));
    add(names.change[2], middle(|change| change.seconds) * 1e3);
    Ok(())
}

/// What a change cost.
struct Change {
    responses: f64,
    bytes: f64,
    seconds: f64,
}

/// Counters of the control plane.
struct Counters {
    responses: f64,
    acks: f64,
    resources: f64,
    sent: f64,
}

impl Counters {
    fn now(place: &Place) -> Result<Self> {
        let mesh = place.mesh.as_ref().context("a mesh")?;
        let text = mesh.server.get(SocketAddr::from(([127, 0, 0, 1], SERVER_ADMIN)), "/metrics")?;
        let devices =
            in_netns(place.cluster.lab().control().name(), || std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        Ok(Self {
            responses: metric(&text, "weft_xds_responses_total", &[]),
            acks: metric(&text, "weft_xds_acks_total", &[]),
            resources: metric(&text, "weft_xds_resources_total", &["Address"]),
            sent: sent(&devices).context("the bytes that left the control plane")?,
        })
    }
}

/// Bytes sent through eth0: the ninth number of its line in /proc/net/dev.
fn sent(devices: &str) -> Option<f64> {
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    line.split_whitespace().nth(8)?.parse().ok()
}

/// Puts `count` workloads into the mesh besides those of the laboratory, and waits until both agents have acknowledged them.
fn fill(place: &Place, count: u32) -> Result<()> {
    let before = Counters::now(place)?;
    let directory = place.cluster.directory();
    for file in 0..count.div_ceil(PER_FILE) {
        let numbers = file * PER_FILE..count.min((file + 1) * PER_FILE);
        let text: String = numbers.map(|number| workload(number, true)).collect();
        directory.apply_yaml(&format!("catalog-{count}-{file}"), &text)?;
    }
    // The last one of a smaller catalog is written again, unchanged, by the larger one.
    let wanted = before.resources + f64::from(count.saturating_sub(SMALL).max(1)) * AGENTS;
    wait::eventually(KNOWN, "the catalog in both agents", || {
        let now = Counters::now(place)?;
        ensure!(now.resources >= wanted && now.acks >= now.responses, "{} of {wanted} resources sent", now.resources);
        anyhow::Ok(())
    })
}

/// Changes one workload and waits for both acknowledgements.
fn change(place: &Place, number: usize) -> Result<Change> {
    let before = Counters::now(place)?;
    let begin = Instant::now();
    flip(place, number)?;
    let after = wait::eventually(APPLIED, "the change in both agents", || {
        let now = Counters::now(place)?;
        ensure!(now.acks >= before.acks + AGENTS, "{} acknowledgements", now.acks - before.acks);
        anyhow::Ok(now)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Change { responses: after.responses - before.responses, bytes: after.sent - before.sent, seconds })
}

/// Ready or not: one workload's document, in a file of its own.
fn flip(place: &Place, number: usize) -> Result<()> {
    place.cluster.directory().apply_yaml("changing", &workload(LARGE + 1, number.is_multiple_of(2)))
}

/// p99 of echo in microseconds, in quiet or while workloads change.
fn echo(place: &Place, window: Duration, changes: bool) -> Result<f64> {
    let load = Load::of(Part::Echo, 1).context("a load")?;
    let over = AtomicBool::new(!changes);
    let measured = std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                flip(place, number)?;
                number += 1;
                wait::pause(BETWEEN);
            }
            anyhow::Ok(())
        });
        let measured = load.run(place, Scope::TwoNodes, window);
        over.store(true, Ordering::Relaxed);
        changing.join().expect("it does not panic")?;
        measured
    })?;
    Ok(measured.tally.latency.quantile(0.99).unwrap_or_default() as f64 / 1e3)
}

/// A pod of a node that is not ours.
fn workload(number: u32, ready: bool) -> String {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number);
    let (app, ready) = (number % 500, if ready { "True" } else { "False" });
    let mut text = String::new();
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: w-{number}\n  namespace: {NAMESPACE}\n  \
         uid: 10000000-0000-4000-8000-{number:012}\n  labels: {{app: app-{app}}}\nspec:\n  nodeName: elsewhere-{}\n  \
         serviceAccountName: app-{app}\nstatus:\n  phase: Running\n  podIP: {address}\n  podIPs:\n  - ip: {address}\n  \
         conditions:\n  - {{type: Ready, status: \"{ready}\"}}\n",
        number / 100
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_counts() {
        let devices = "Inter-| Receive | Transmit\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10\n  eth0: 11 2 3 4 5 6 7 8 99 10 0\n";
        assert_eq!((sent(devices), sent("nothing")), (Some(99.0), None));
    }

    #[test]
    fn workloads_differ_and_are_documents() {
        let text = workload(70_000, false);
        assert!(
            text.starts_with("---\n") && text.contains("podIP: 10.129.17.112") && text.contains("\"False\""),
            "{text}"
        );
        assert_ne!(workload(1, true), workload(2, true));
    }
}
