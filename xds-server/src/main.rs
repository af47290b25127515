//! `weft-xds-server`: the program. Its parts are in the library.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use weft_runtime::logging;
use weft_xds_server::config::Arguments;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    weft_runtime::failure::exit_code(run(Arguments::parse()).as_ref().map_err(AsRef::as_ref))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let logging = logging::init(&arguments.log, arguments.log_format.into()).context("--log")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(weft_xds_server::app::run(arguments, logging))
}
