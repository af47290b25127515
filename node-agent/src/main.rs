//! `weft-node-agent`: the program. Its halves are in the library; this chooses one and gives it its thread.

use std::process::ExitCode;

use clap::Parser;
use weft_node_agent::capture::{command, status::StatusHandle};
use weft_node_agent::config::{Arguments, CommonOptions, Half, OneHalf, ProxyOptions};
use weft_node_agent::{control, privileges, supervise};
use weft_runtime::logging;
use weft_runtime::signals::Signals;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().half {
        Half::Capture { common, capture } => run_capture(&common, &capture),
        Half::Proxy { common, proxy } => run_proxy(common, *proxy),
        Half::Run { common, capture, proxy, only } => match only {
            Some(OneHalf::Capture) => run_capture(&common, &capture),
            Some(OneHalf::Proxy) => run_proxy(common, *proxy),
            None => run_both(&common, &proxy),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started the program by hand must see why it ended, whatever the log filter is.
            use std::io::Write;
            let _written = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_capture(common: &CommonOptions, options: &command::CaptureOptions) -> anyhow::Result<()> {
    logging::init(&common.log, common.log_format.into())?;
    Ok(command::run(&common.node, &common.handover, options, StatusHandle::default())?)
}

/// Privileges go first: they belong to threads, and there is only this one yet.
fn run_proxy(common: CommonOptions, options: ProxyOptions) -> anyhow::Result<()> {
    let standing = privileges::give_up_all(options.run_as)?;
    let logging = logging::init(&common.log, common.log_format.into())?;
    tracing::info!(user = standing.uid, changed_user = standing.changed_user, "runs without any capability");
    let runtime = local_runtime()?;
    runtime.block_on(control::run_proxy(common, options, logging))
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
