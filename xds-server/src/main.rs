//! `weft-xds-server`: the program. Its parts are in the library.

use std::process::ExitCode;

use clap::Parser;
use weft_runtime::logging;
use weft_xds_server::config::Arguments;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let logging = match logging::init(&arguments.log, arguments.log_format.into()) {
        Ok(logging) => logging,
        Err(error) => return failed(&format!("--log: {error}")),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    match runtime.block_on(weft_xds_server::app::run(arguments, logging)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// Whoever started the program by hand must see why it ended, whatever the log filter is.
fn failed(why: &str) -> ExitCode {
    use std::io::Write;
    let _written = writeln!(std::io::stderr(), "error: {why}");
    ExitCode::FAILURE
}
