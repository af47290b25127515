//! `weft-xds-server`: the program. Its parts are in the library.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Parser;
use weft_runtime::logging;
use weft_xds_server::ca::rotate;
use weft_xds_server::config::{Arguments, RotateArguments};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let outcome = if words.get(1).is_some_and(|word| word == "rotate-root") {
        words.remove(1);
        rotate_root(&RotateArguments::parse_from(words))
    } else {
        run(Arguments::parse())
    };
    weft_runtime::failure::exit_code(outcome.as_ref().map_err(AsRef::as_ref))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let logging = logging::init(&arguments.log, arguments.log_format.into()).context("--log")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(weft_xds_server::app::run(arguments, logging))
}

fn rotate_root(arguments: &RotateArguments) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if !arguments.status {
        rotate::begin(&arguments.state_dir, &arguments.trust_domain, SystemTime::now())?;
        let roots = arguments.state_dir.join("root-cert.pem");
        writeln!(out, "A new root is made; the server gives it to every node from now on.")?;
        writeln!(out, "Copy {} to every node before step 2 begins (it is what agents start with).", roots.display())?;
    }
    writeln!(out, "{}", rotate::phase(&arguments.state_dir)?.words())?;
    Ok(())
}
