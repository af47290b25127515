//! `make bench`: enters private namespaces (root or not), then measures. What it does stands in `bench`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use weft_e2e::bench::{BenchFlags, run};
use weft_testkit::netns::enter_program;

fn main() -> ExitCode {
    let flags = BenchFlags::parse();
    match enter_program() {
        Ok(_) => run(&flags),
        Err(impossible) => {
            let _ = writeln!(std::io::stderr(), "weft-bench: {impossible}");
            ExitCode::FAILURE
        }
    }
}
