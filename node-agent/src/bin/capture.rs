//! `weft-node-agent-capture`: the capture half alone. `weft-node-agent capture` becomes it; see `capture_half.rs` of the library.

use std::process::ExitCode;

use clap::Parser;
use weft_node_agent::capture_half;
use weft_node_agent::config::Arguments;

fn main() -> ExitCode {
    let outcome = capture_half::run(Arguments::parse());
    weft_runtime::failure::exit_code(outcome.as_ref().map_err(|error| error as _))
}
