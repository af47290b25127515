//! `weft-node-agent-watch`: tells the capture half which pods are on its node. Beside it, without any privilege; see `watch.rs` of the
//! library.

use std::process::ExitCode;

use clap::Parser;
use weft_node_agent::watch::{WatchArguments, run};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = run(&WatchArguments::parse());
    weft_runtime::failure::exit_code(outcome.as_ref().map_err(|error| error as _))
}
