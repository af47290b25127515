//! Resident memory: of idle agents, with open connections, and after those have closed.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use weft_testkit::wait;

use super::account::{Spent, proportional, resident};
use super::figure::Scope;
use super::flags::BenchFlags;
use super::place::Place;
use super::results::{Results, Sample};
use super::show::Show;

/// Mebibyte.
const MEBIBYTE: f64 = (1 << 20) as f64;
/// What a start leaves behind has been used again or given back by then.
const SETTLE: Duration = Duration::from_secs(2);

/// A process of its own with open connections: with both ends in one, 10,000 of them need more descriptors than many
/// machines allow.
struct Holder {
    child: Child,
    /// Seconds to open all.
    took: f64,
}

impl Holder {
    fn start(place: &Place, address: IpAddr, count: usize) -> Result<Self> {
        let mut command = place.client.command(std::env::current_exe()?);
        command.args(["--hold-open", &address.to_string(), "--held", &count.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("standard output was piped")?).read_line(&mut line)?;
        let took = line.trim().parse().with_context(|| format!("{count} connections could not be opened"))?;
        Ok(Self { child, took })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Measures a place that has carried nothing yet.
///
/// # Errors
/// A connection cannot be opened.
pub fn memory(place: &Place, flags: &BenchFlags, show: &Show, results: &mut Results) -> Result<()> {
    let (peer, count) = (place.peer, flags.held);
    let give_back = Duration::from_secs_f64(flags.give_back);
    let mut add = |key, value| results.add(Scope::Agent, key, peer, Sample { value, others: 0.0 });
    let megabytes = |pids: &[u32]| anyhow::Ok(resident(pids)? as f64 / MEBIBYTE);
    show.progress(&format!("memory: {peer:?}, idle"));
    wait::pause(SETTLE.min(give_back));
    add("rss-idle", megabytes(&place.agents(Some(1)))?);
    if let Some(share) = proportional(&place.agents(Some(1))) {
        add("pss-idle", share as f64 / MEBIBYTE);
    }
    show.progress(&format!("memory: {peer:?}, {count} open connections"));
    let (_, address) = place.server(Scope::TwoNodes);
    let before = Spent::now(&place.agents(None))?;
    let holder = Holder::start(place, address, count)?;
    add("held-open", holder.took);
    add("held-cpu", Spent::now(&place.agents(None))?.agents_since(&before));
    wait::pause(SETTLE.min(give_back));
    add("rss-held", megabytes(&place.agents(None))?);
    drop(holder);
    place.wait_empty()?;
    show.progress(&format!("memory: {peer:?}, after they have closed"));
    wait::pause(give_back);
    add("rss-after", megabytes(&place.agents(None))?);
    if count != 10_000 {
        results.note(format!("the memory with open connections is with {count} of them"));
    }
    Ok(())
}
