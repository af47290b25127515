//! `weft-node-agent`: the program. Its halves are in the library; this chooses one and gives it its thread.

use std::process::ExitCode;

use clap::Parser;
use tikv_jemalloc_ctl::{Access, AsName};
use weft_node_agent::config::{Arguments, CommonOptions, Half, OneHalf, ProxyOptions};
use weft_node_agent::{capture_half, cni, control, limits, privileges, sandbox, supervise};
use weft_runtime::logging;
use weft_runtime::signals::Signals;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.half {
        Half::Capture { .. } | Half::Run { only: Some(OneHalf::Capture), .. } => run_capture(arguments),
        Half::Proxy { common, proxy } => run_proxy(common, *proxy),
        Half::Run { common, proxy, only: Some(OneHalf::Proxy), say_ready, .. } => {
            run_proxy_of_both(common, ProxyOptions { say_ready, ..*proxy })
        }
        Half::Run { common, proxy, only: None, .. } => run_both(&common, &proxy),
        Half::CniInstall { options, log, log_format } => {
            logging::init(&log, log_format.into()).map_err(Into::into).and_then(|_| Ok(cni::install::run(&options)?))
        }
    };
    weft_runtime::failure::exit_code(outcome.as_ref().map_err(AsRef::as_ref))
}

fn run_capture(arguments: Arguments) -> anyhow::Result<()> {
    capture_half::become_program();
    Ok(capture_half::run(arguments)?)
}

fn run_proxy(common: CommonOptions, options: ProxyOptions) -> anyhow::Result<()> {
    let standing = give_up_all(&options)?;
    serve_as_proxy(common, options, standing)
}

/// Descriptors first: without privileges no hard limit can be raised.
fn give_up_all(options: &ProxyOptions) -> anyhow::Result<privileges::Standing> {
    limits::raise_open_files();
    Ok(privileges::give_up_all(options.run_as)?)
}

fn run_proxy_of_both(common: CommonOptions, options: ProxyOptions) -> anyhow::Result<()> {
    let standing = give_up_all(&options)?;
    supervise::end_with_supervisor()?;
    serve_as_proxy(common, options, standing)
}

/// Privileges went first, and the sandbox comes next: both belong to threads, and until here there was only this one.
fn serve_as_proxy(common: CommonOptions, options: ProxyOptions, standing: privileges::Standing) -> anyhow::Result<()> {
    let logging = logging::init(&common.log, common.log_format.into())?;
    tracing::info!(user = standing.uid, changed_user = standing.changed_user, "runs without any capability");
    let enclosure = sandbox::enclose(options.sandbox, &options.readable())?;
    enclosure.log();
    give_memory_back();
    let runtime = local_runtime()?;
    runtime.block_on(control::run_proxy(common, options, logging, &enclosure))
}

/// How long the allocator keeps free pages for somebody who wants them again: jemalloc's `dirty_decay_ms`, which is 10,000 by itself. What a
/// start or a burst of connections needed is given back after it.
const KEEP_FREE_PAGES_MS: isize = 1_000;

/// The allocator gives pages back only while somebody allocates, and after a load nobody does: 10,000 connections had left
/// 47 MB behind for as long as one looked. A thread of its own gives them back, and soon.
fn give_memory_back() {
    let one = tikv_jemalloc_ctl::max_background_threads::write(1);
    // Of the arenas that there will be, and of the one that there is.
    let soon = || {
        b"arenas.dirty_decay_ms\0".name().write(KEEP_FREE_PAGES_MS)?;
        b"arena.0.dirty_decay_ms\0".name().write(KEEP_FREE_PAGES_MS)
    };
    if let Err(error) = one.and_then(|()| tikv_jemalloc_ctl::background_thread::write(true)).and_then(|()| soon()) {
        tracing::warn!(%error, "memory that is free will be given back late");
    }
}

fn run_both(common: &CommonOptions, proxy: &ProxyOptions) -> anyhow::Result<()> {
    logging::init(&common.log, common.log_format.into())?;
    let plan = supervise::Plan {
        program: std::env::current_exe()?,
        arguments: std::env::args_os().skip(1).collect(),
        drain_deadline: proxy.drain_deadline,
    };
    let runtime = local_runtime()?;
    Ok(runtime.block_on(async { supervise::run(plan, Signals::new()?).await })?)
}

fn local_runtime() -> std::io::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default())
}
