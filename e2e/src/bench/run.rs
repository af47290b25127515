//! The whole benchmark, part by part.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use weft_testkit::agents::Extra;

use super::allocations::allocations;
use super::catalog::catalog;
use super::figure::Peer;
use super::flags::{BenchFlags, LOADS, Output, Part};
use super::load::hold;
use super::machine;
use super::memory::memory;
use super::place::{Place, Wishes};
use super::results::Results;
use super::rounds::{profile, rounds};
use super::show::Show;
use super::table::table;

/// Descriptors of this process and of the agents: far more than open connections are asked for.
const DESCRIPTORS: u64 = 100_000;

/// Runs what the flags ask for. The exit code says whether it could be measured, not whether goals were met.
#[must_use]
pub fn run(flags: &BenchFlags) -> ExitCode {
    let show = Show::default();
    if let Some(address) = flags.hold_open {
        return match keep_open(address, flags.held, &show) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                show.progress(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        };
    }
    let mut results = Results::default();
    let outcome = measure(flags, &show, &mut results);
    let written = report(flags, &show, &results);
    match outcome.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show.progress(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(flags: &BenchFlags, show: &Show, results: &mut Results) -> Result<()> {
    raise_descriptors(results);
    let ztunnel = std::env::var_os("WEFT_PEER_ZTUNNEL").map(PathBuf::from).filter(|path| path.is_file());
    if ztunnel.is_none() {
        show.progress("no stock ztunnel beside us: WEFT_PEER_ZTUNNEL names none (docs/interop.md)");
    }
    let wishes = Wishes { extra: Extra::words("", "", &flags.proxy), ztunnel, keep: None, piece: flags.piece() };
    let meshes = [Some(Peer::Weft), wishes.ztunnel.as_ref().map(|_| Peer::Ztunnel)].into_iter().flatten();
    if let Some(part) = flags.profile {
        let place = Place::build(Peer::Weft, &Wishes { keep: flags.keep.clone(), ..wishes })?;
        return profile(&place, flags, part, show);
    }
    let kept = |part: &str, peer: Peer| {
        let keep = flags.keep.as_ref().map(|keep| keep.join(format!("{part}-{peer:?}").to_lowercase()));
        Wishes { keep, ..wishes.clone() }
    };
    if LOADS.into_iter().any(|part| flags.wants(part)) {
        show.progress("building a laboratory for each peer");
        let peers = std::iter::once(Peer::Direct).chain(meshes.clone());
        let places: Vec<_> = peers.map(|peer| Place::build(peer, &kept("path", peer))).collect::<Result<_>>()?;
        rounds(flags, &places, show, results)?;
    }
    if flags.wants(Part::Memory) {
        for peer in meshes {
            memory(&Place::build(peer, &kept("memory", peer))?, flags, show, results)?;
        }
    }
    if flags.wants(Part::Allocations) {
        // Not kept: each of its places would write into the same logs.
        allocations(&wishes, show, results)?;
    }
    if flags.wants(Part::Catalog) {
        catalog(&Place::build(Peer::Weft, &kept("catalog", Peer::Weft))?, flags, show, results)?;
    }
    Ok(())
}

/// The child process that holds connections open until its standard input ends.
fn keep_open(address: IpAddr, count: usize, show: &Show) -> Result<()> {
    let held = hold(address, count)?;
    show.results(&held.took.as_secs_f64().to_string())?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// To what the hard limit allows, and beyond it where we may: children inherit it.
fn raise_descriptors(results: &mut Results) {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = DESCRIPTORS.max(hard);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        results.note(format!("at most {hard} descriptors per process"));
    }
}

fn report(flags: &BenchFlags, show: &Show, results: &Results) -> Result<()> {
    let rows = results.rows();
    let file = flags.file.clone().unwrap_or_else(default_file);
    let machine = machine::describe();
    let everything: Value = json!({
        "machine": machine, "rounds": flags.rounds(), "seconds": flags.window().as_secs_f64(),
        "figures": rows, "notes": results.notes,
    });
    let text = serde_json::to_string_pretty(&everything).context("results are plain values")?;
    show.file(&file, &text)?;
    show.results(&match flags.output {
        Output::Json => text,
        Output::Table => format!("{}\n\n{}", machine::line(&machine), table(&rows, &results.notes)),
    })
}

/// In cargo's target directory.
fn default_file() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("bench/l4.json")
}
