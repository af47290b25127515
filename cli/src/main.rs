//! The program: a table of subcommands.

use std::process::ExitCode;

use clap::Parser;
use weft_cli::arguments::{Arguments, CertsCommand, CertsOptions, Command, PodsOptions};
use weft_cli::cluster::options::Act;
use weft_cli::{cluster, lint, output, show, why};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Install(options) => cluster::install::run(options, Act::Install),
        Command::Upgrade(options) => cluster::install::run(options, Act::Upgrade),
        Command::Uninstall(options) => cluster::uninstall::run(options),
        Command::Enroll(options) => cluster::enroll::run(options, true),
        Command::Unenroll(options) => cluster::enroll::run(options, false),
        Command::Check(options) => cluster::check::run::run(options),
        Command::Pods(PodsOptions { all_namespaces: true, show }) => {
            cluster::pods::run(&show.programs.cluster, show.namespace.as_deref(), show.output)
        }
        Command::Pods(options) => show::pods::run(&options.show),
        Command::Services(options) => show::services::run(options),
        Command::Policies(options) => show::policies::run(options),
        Command::Connections(options) => show::connections::run(options),
        Command::Certs(CertsOptions { action: Some(CertsCommand::Rotate(options)), .. }) => {
            cluster::rotate::run(options)
        }
        Command::Certs(options) => show::certificates::run(&options.show),
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
