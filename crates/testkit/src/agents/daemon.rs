//! One program that runs in a namespace until it is told otherwise: ready, killed, restarted, asked.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};

use super::http;
use crate::netns::run;
use crate::process::Process;

/// From start to ready: xDS, certificates and capture take well under 2 s; two busy cores may take longer.
const READY: Duration = Duration::from_secs(20);
/// From SIGTERM to the end, drain included.
const TERMINATE: Duration = Duration::from_secs(20);

/// How to start it; kept for restarts.
#[derive(Clone, Debug)]
pub struct DaemonPlan {
    /// Name of its log.
    pub name: String,
    /// Namespace that it runs in.
    pub netns: String,
    /// Program and arguments, as in [`std::process::Command`]; may begin with a wrapper such as `setpriv`.
    pub command: Vec<OsString>,
    /// Environment added.
    pub environment: Vec<(String, String)>,
    /// Asked for `/healthz/ready`; `None`: ready as soon as it runs.
    pub health: Option<SocketAddr>,
    /// Directory of the log.
    pub logs: PathBuf,
}

/// A running, or just killed, program.
#[derive(Debug)]
pub struct Daemon {
    plan: DaemonPlan,
    process: Process,
}

impl Daemon {
    /// Starts it; does not wait.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn start(plan: DaemonPlan) -> Result<Self> {
        let process = launch(&plan)?;
        Ok(Self { plan, process })
    }

    /// Waits for `/healthz/ready`.
    ///
    /// # Errors
    /// It ended, or is not ready in 20 s: with the tail of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let Some(health) = self.plan.health else { return Ok(()) };
        let netns = self.plan.netns.clone();
        self.process.wait_ready(READY, "readiness", || http::get_ok(&netns, health, "/healthz/ready").map(drop))
    }

    /// SIGKILL; gone when this returns.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.process.kill9()
    }

    /// SIGTERM and the end of the drain.
    ///
    /// # Errors
    /// Not ended in 20 s.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(TERMINATE)
    }

    /// Starts it again with the same command line (after `kill9` or `terminate`; kills it if it still runs).
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.process = launch(&self.plan)?;
        Ok(())
    }

    /// Asks one of its ports from its own namespace.
    ///
    /// # Errors
    /// As [`http::get_ok`]; with the tail of the log.
    pub fn get(&self, address: SocketAddr, path: &str) -> Result<String> {
        http::get_ok(&self.plan.netns, address, path).with_context(|| self.process.tail())
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, for waits.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The path of a namespace of the lab.
fn netns_path(name: &str) -> String {
    format!("/run/netns/{name}")
}

fn launch(plan: &DaemonPlan) -> Result<Process> {
    // A missing program would only show as nsenter's exit status: say it here.
    let program = plan.command.first().context("a command line begins with a program")?;
    run(Command::new("sh").args(["-c", "command -v \"$0\""]).arg(program))
        .with_context(|| format!("{} cannot be executed", program.to_string_lossy()))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns_path(&plan.netns))).arg("--").args(&plan.command);
    command.envs(plan.environment.iter().map(|(key, value)| (key, value)));
    Process::start(&plan.logs, &plan.name, command)
}
