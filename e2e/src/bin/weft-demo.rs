//! `make demo`: enters private namespaces (root or not), then plays the demo. What it does stands in `demo`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use weft_e2e::demo::{DemoFlags, run};
use weft_testkit::netns::enter_program;

fn main() -> ExitCode {
    let flags = DemoFlags::parse();
    match enter_program() {
        Ok(inside) => run(&flags, inside),
        Err(impossible) => {
            let _ = writeln!(std::io::stderr(), "weft-demo: {impossible}");
            ExitCode::FAILURE
        }
    }
}
