//! `weft-node-agent`: the program. Its halves are in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weft_node_agent::capture::{
    command::{self, CaptureArguments},
    status::StatusHandle,
};

/// Node agent of Weft.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    half: Half,
}

#[derive(Subcommand)]
enum Half {
    /// The privileged half: captures the pods of this node and hands their sockets to the proxy half.
    Capture(CaptureArguments),
}

fn main() -> ExitCode {
    let Half::Capture(arguments) = Arguments::parse().half;
    let logging =
        weft_runtime::logging::init(weft_runtime::logging::DEFAULT_FILTER, weft_runtime::logging::Format::Text);
    if logging.is_err() {
        return ExitCode::FAILURE;
    }
    match command::run(&arguments, StatusHandle::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
