//! One network namespace: made, entered by threads and by child processes, removed when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::shell::{run, run_with_input};

/// Where `ip netns` keeps its names.
const RUN_NETNS: &str = "/run/netns";

/// A named network namespace that is ours. Its name is removed at drop; the kernel ends it when no process is left.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `name`, with `lo` up and IPv6 addresses usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// The name exists, or this process may not make namespaces (see `enter_test` and `enter_program`).
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned() };
        for which in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{which}/dad_transmits"), "0")?;
        }
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// The name under /run/netns.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs lines of `ip -batch` inside.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run_with_input(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines).map(drop)
    }

    /// Writes a sysctl of this namespace; `key` with slashes, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// Unknown key, or /proc/sys is read-only (a container without a /proc of its own).
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        in_netns(&self.name, || fs::write(&path, value))?.with_context(|| path.display().to_string())
    }

    /// A command that runs inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        command_in(&self.name, program)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing to do about a failure: the private mount namespace ends with this process in any case.
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// A command that runs `program` in namespace `name`. `nsenter` replaces itself by the program, so the child's
/// process id is the program's. Standard input is empty.
pub(crate) fn command_in(name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(name).display())).arg("--").arg(program).stdin(Stdio::null());
    command
}

fn path(name: &str) -> PathBuf {
    Path::new(RUN_NETNS).join(name)
}

fn join(name: &str) -> Result<()> {
    let file = File::open(path(name)).with_context(|| format!("network namespace {name}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter network namespace {name}"))
}

/// Runs `work` on a fresh thread inside namespace `name`, and waits for its result. Sockets made inside stay there,
/// wherever they are used afterwards; threads started inside stay inside too.
///
/// # Errors
/// The namespace cannot be entered.
///
/// # Panics
/// When `work` panics.
pub fn in_netns<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| join(name).map(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts `work` on a thread of its own inside namespace `name`.
///
/// # Errors
/// The namespace cannot be entered, or no thread is left.
pub fn spawn_in_netns<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    // The namespace is opened and entered by an intermediate thread, so that a failure is known here and now.
    in_netns(name, || thread::Builder::new().name(format!("in {name}")).spawn(work).context("cannot start a thread"))?
}
