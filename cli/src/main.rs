//! The program: a table of subcommands.

use std::process::ExitCode;

use clap::Parser;
use weft_cli::arguments::{Arguments, Command};
use weft_cli::{lint, output, show, why};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Pods(options) => show::pods::run(options),
        Command::Services(options) => show::services::run(options),
        Command::Policies(options) => show::policies::run(options),
        Command::Connections(options) => show::connections::run(options),
        Command::Certs(options) => show::certificates::run(options),
        Command::Config(options) => show::config::run(options),
        Command::Why(options) => why::run(options),
        Command::Lint(options) => lint::run(options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(2)
        }
    }
}
