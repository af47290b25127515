//! `make soak`: enters private namespaces (root or not), then runs the soak. What it does stands in `soak`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use weft_e2e::soak::{SoakFlags, run};
use weft_testkit::netns::enter_program;

fn main() -> ExitCode {
    let flags = SoakFlags::parse();
    if flags.list || flags.herd.is_some() {
        return run(&flags);
    }
    match enter_program() {
        Ok(_) => run(&flags),
        Err(impossible) => {
            let _ = writeln!(std::io::stderr(), "weft-soak: {impossible}");
            ExitCode::FAILURE
        }
    }
}
