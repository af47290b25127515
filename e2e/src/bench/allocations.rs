//! Allocations per request and per connection: jemalloc counts them and says so when an agent ends; the difference of two
//! loads is what a unit costs. Outside of the timed runs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use weft_testkit::agents::Daemon;

use super::figure::{Peer, Scope};
use super::load::{Exchange, REQUESTS, exchanges, one_exchange};
use super::place::{Place, Wishes};
use super::results::{Results, Sample};
use super::show::Show;

/// What makes jemalloc print its counts at exit.
const PRINT: [&str; 2] = ["env", "_RJEM_MALLOC_CONF=stats_print:true"];
/// Connections of the requests, and threads that open new ones.
const THREADS: usize = 16;
/// Requests and connections of each thread: everything that happens only once is in all three.
const LOADS: [(usize, usize); 3] = [(100, 20), (1100, 20), (100, 220)];
/// The end of an agent that carries nothing any more.
const END: Duration = Duration::from_secs(20);

/// Counts, in places of their own.
///
/// # Errors
/// A load fails, or an agent does not end.
pub fn allocations(wishes: &Wishes, show: &Show, results: &mut Results) -> Result<()> {
    let mut wishes = wishes.clone();
    wishes.extra.proxy_wrapper = PRINT.map(str::to_owned).into();
    let mut counts = Vec::new();
    for (requests, connections) in LOADS {
        let (all, new) = (requests * THREADS, connections * THREADS);
        show.progress(&format!("allocations: {all} requests and {new} connections"));
        match count(&wishes, requests, connections)? {
            Some(count) => counts.push(count as f64),
            None => {
                results.note("allocations are not counted: the agents' allocator prints no counts".into());
                return Ok(());
            }
        }
    }
    let per = |more: usize, index: usize, key| {
        let units = (more - [LOADS[0].0, LOADS[0].1][index - 1]) * THREADS;
        (key, (counts[index] - counts[0]) / units as f64)
    };
    for (key, value) in [per(LOADS[1].0, 1, "allocations-request"), per(LOADS[2].1, 2, "allocations-connection")] {
        results.add(Scope::Agent, key, Peer::Weft, Sample { value, others: 0.0 });
    }
    Ok(())
}

/// The allocations of both proxy halves for that much work; `None` when they do not count.
fn count(wishes: &Wishes, requests: usize, connections: usize) -> Result<Option<u64>> {
    let mut place = Place::build(Peer::Weft, wishes)?;
    let target = SocketAddr::new(place.server(Scope::TwoNodes).1, REQUESTS);
    place.client.run(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(move || {
                        exchanges(target, &Exchange::kept(), requests)?;
                        (0..connections).try_for_each(|_| one_exchange(target, &Exchange::last()))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a thread of the load does not panic"))
        })
    })??;
    place.wait_empty()?;
    let mut sum = 0;
    for agent in place.mesh.iter_mut().flat_map(|mesh| &mut mesh.agents) {
        let Some(count) = allocated(&mut agent.proxy)? else { return Ok(None) };
        sum += count;
    }
    Ok(Some(sum))
}

fn allocated(proxy: &mut Daemon) -> Result<Option<u64>> {
    proxy.process_mut().terminate(END).context("an agent that should print its counts")?;
    Ok(requests_of(&proxy.process().output()))
}

/// The column `nrequests` of the first line `total:` in jemalloc's merged statistics.
fn requests_of(output: &str) -> Option<u64> {
    let (_, merged) = output.split_once("Merged arenas stats:")?;
    let total = merged.lines().find_map(|line| line.strip_prefix("total:"))?;
    // allocated, nmalloc and its rate, ndalloc and its rate, nrequests.
    total.split_whitespace().nth(5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_jemalloc_prints() {
        let text = "log line\n___ Begin jemalloc statistics ___\nMerged arenas stats:\nassigned threads: 3\n\
            \x20                allocated  nmalloc (#/sec)  ndalloc (#/sec)  nrequests (#/sec)  nfill (#/sec)  nflush (#/sec)\n\
            small:            1  2 3 4 5 6 7 8 9 10 11\nlarge:            1 2 3 4 5 6 7 8 9 10 11\n\
            total:      1234567   200     10    150      9     4321    77    12    1    13    1\n";
        assert_eq!(requests_of(text), Some(4321));
        assert_eq!(requests_of("--- End jemalloc statistics ---"), None);
    }
}
