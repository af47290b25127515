//! The interleaved rounds: every load, both scopes, one peer after the other.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::account::Spent;
use super::figure::{Peer, Scope};
use super::flags::{BenchFlags, LOADS, Part};
use super::load::{
    ECHO, Exchange, HTTP, Measured, SINK, Timing, Work, bulk, closed, connections, drive, open, requests,
    something_done,
};
use super::place::Place;
use super::results::{Results, Sample};
use super::show::Show;

/// Connections of the closed loop of requests, on [`LOOPS`] event loops.
const REQUEST_CONNECTIONS: usize = 32;
/// Connections of the closed loop of messages.
const ECHO_CONNECTIONS: usize = 64;
/// Event loops of the client.
const LOOPS: usize = 2;
/// Requests per second of the open loop, and the connections that take turns.
const RATE: u32 = 1000;
const RATE_CONNECTIONS: u32 = 16;
/// Workers that open new connections.
const WORKERS: usize = 16;
/// Load before each window: the first connections, tunnels and slow start are over by then.
const WARM_UP: Duration = Duration::from_millis(300);

/// One kind of load.
pub struct Load {
    /// What it is called.
    pub part: Part,
    port: u16,
    threads: usize,
    work: Work,
}

impl Load {
    /// A load by its name, bulk in pieces of that many bytes; `None` for parts that are no load.
    #[must_use]
    pub fn of(part: Part, piece: usize) -> Option<Self> {
        let every = Duration::from_secs(1) * RATE_CONNECTIONS / RATE;
        let (port, threads, work) = match part {
            Part::Requests => (HTTP, LOOPS, requests(REQUEST_CONNECTIONS / LOOPS)),
            Part::Rate => (HTTP, RATE_CONNECTIONS as usize, open(Exchange::kept(), every, RATE_CONNECTIONS)),
            Part::Connections => (HTTP, LOOPS, connections(WORKERS / LOOPS)),
            Part::Echo => (ECHO, 1, closed(Exchange::echo(), 1)),
            Part::Echo64 => (ECHO, LOOPS, closed(Exchange::echo(), ECHO_CONNECTIONS / LOOPS)),
            Part::Bulk1 => (SINK, 1, bulk(piece)),
            Part::Bulk4 => (SINK, 4, bulk(piece)),
            Part::Memory | Part::Allocations | Part::Catalog => return None,
        };
        Some(Self { part, port, threads, work })
    }

    /// Puts it on one place.
    ///
    /// # Errors
    /// Nothing at all was done.
    pub fn run(&self, place: &Place, scope: Scope, window: Duration) -> Result<Measured<(Spent, u64)>> {
        let (server, address) = place.server(scope);
        let (agents, target) = (place.agents(None), SocketAddr::new(address, self.port));
        let timing = Timing { warm_up: WARM_UP.min(window), window };
        let read = || Ok((Spent::now(&agents)?, server.swallowed()));
        let measured = drive(&place.client.netns, target, (self.threads, &self.work), timing, read)?;
        something_done(&measured.tally, &format!("{:?} {scope:?} {:?}", place.peer, self.part))?;
        Ok(measured)
    }
}

/// Runs all rounds.
///
/// # Errors
/// A load that does nothing at all.
pub fn rounds(flags: &BenchFlags, places: &[Place], show: &Show, results: &mut Results) -> Result<()> {
    for round in 1..=flags.rounds() {
        for load in LOADS.into_iter().filter(|part| flags.wants(*part)).filter_map(|part| Load::of(part, flags.piece()))
        {
            for scope in [Scope::TwoNodes, Scope::SameNode] {
                show.progress(&format!("round {round} of {}: {:?}, {scope:?}", flags.rounds(), load.part));
                for place in places {
                    let measured = load.run(place, scope, flags.window())?;
                    if let Err(error) = place.wait_empty() {
                        results.note(format!("after {:?} {scope:?}: {error:#}", load.part));
                    }
                    if let Some(error) = &measured.tally.error {
                        let failed = measured.tally.failed;
                        results.note(format!("{:?} {scope:?} {:?}: {failed} failed, {error}", place.peer, load.part));
                    }
                    for (key, value) in figures_of(load.part, &measured) {
                        let (before, after) = (&measured.before.0, &measured.after.0);
                        let sample = Sample { value, others: after.others_since(before, measured.seconds) };
                        // Nobody carries the direct path.
                        if !(place.peer == Peer::Direct && key.ends_with("-cpu")) {
                            results.add(scope, key, place.peer, sample);
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// The figures that a measurement gives.
fn figures_of(part: Part, measured: &Measured<(Spent, u64)>) -> Vec<(&'static str, f64)> {
    let done = measured.tally.latency.count() as f64;
    let per_second = done / measured.seconds;
    let cpu = measured.after.0.agents_since(&measured.before.0);
    let per_thousand = cpu * 1e6 / done;
    let quantile = |share| measured.tally.latency.quantile(share).unwrap_or_default() as f64 / 1e3;
    let bytes = (measured.after.1 - measured.before.1) as f64;
    let (gigabits, per_gigabyte) = (bytes * 8.0 / 1e9 / measured.seconds, cpu * 1e9 / bytes);
    match part {
        Part::Requests => {
            vec![("requests", per_second), ("requests-p99", quantile(0.99)), ("requests-cpu", per_thousand)]
        }
        Part::Rate => {
            vec![("rate-p50", quantile(0.5)), ("rate-p99", quantile(0.99)), ("rate-cpu", per_thousand)]
        }
        Part::Connections => {
            vec![("connections", per_second), ("connections-p99", quantile(0.99)), ("connections-cpu", per_thousand)]
        }
        Part::Echo => vec![("echo-p50", quantile(0.5)), ("echo-p99", quantile(0.99))],
        Part::Echo64 => vec![("echo64", per_second), ("echo64-cpu", per_thousand)],
        Part::Bulk1 => vec![("bulk1", gigabits), ("bulk1-cpu", per_gigabyte)],
        Part::Bulk4 => vec![("bulk4", gigabits), ("bulk4-cpu", per_gigabyte)],
        Part::Memory | Part::Allocations | Part::Catalog => Vec::new(),
    }
}

/// A load for ever, for whoever profiles.
///
/// # Errors
/// No load of that name, or it does nothing.
pub fn profile(place: &Place, flags: &BenchFlags, part: Part, show: &Show) -> Result<()> {
    let scope = if flags.same_node { Scope::SameNode } else { Scope::TwoNodes };
    let load = Load::of(part, flags.piece()).context("only loads can be profiled")?;
    show.progress(&format!("agents of node 1 (capture, proxy): {:?}", place.agents(Some(1))));
    show.progress(&format!("agents of node 2 (capture, proxy): {:?}", place.agents(Some(2))));
    loop {
        let measured = load.run(place, scope, Duration::from_secs(5))?;
        for (key, value) in figures_of(part, &measured) {
            show.progress(&format!("{key} {value:.1}"));
        }
    }
}
