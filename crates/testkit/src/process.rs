//! A child process with its output in a file: started, watched, stopped, and never left behind.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// How much of a log is shown in an error, bytes: the last words are what matters, and a terminal shows some 40 lines.
const TAIL: usize = 4096;

/// A running child. Killed (SIGKILL) and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error appended to `directory/NAME.log`.
    ///
    /// # Errors
    /// The log cannot be written or the program cannot be executed.
    pub fn start(directory: &Path, name: &str, mut command: Command) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C in the terminal is for us, who end the others in order.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The name given at the start, also the stem of the log's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id as seen by the caller (`nsenter` replaces itself, so it is the program's own).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Everything that the program has printed.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last 4 KiB of the output, for error texts.
    #[must_use]
    pub fn tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = bytes.len().saturating_sub(TAIL);
        format!("--- end of {} ---\n{}", self.log.display(), String::from_utf8_lossy(&bytes[start..]))
    }

    /// The exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `ready` returns `Ok`; gives up at once when the process ends.
    ///
    /// # Errors
    /// The process ended or the deadline passed; both show the tail of the log.
    pub fn wait_ready<T>(&mut self, deadline: Duration, what: &str, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
        let start = std::time::Instant::now();
        loop {
            let refusal = match ready() {
                Ok(value) => return Ok(value),
                Err(refusal) => refusal,
            };
            if let Some(status) = self.ended() {
                bail!("{} ended with {status} before {what}\n{}", self.name, self.tail());
            }
            if start.elapsed() >= deadline {
                bail!("{}: {what} not reached in {deadline:?}: {refusal:#}\n{}", self.name, self.tail());
            }
            wait::pause(Duration::from_millis(5));
        }
    }

    /// Waits until the output contains `text`.
    ///
    /// # Errors
    /// As [`Process::wait_ready`].
    pub fn wait_output(&mut self, deadline: Duration, text: &str) -> Result<()> {
        let log = self.log.clone();
        self.wait_ready(deadline, &format!("the words {text:?} in its output"), || {
            let bytes = fs::read(&log)?;
            String::from_utf8_lossy(&bytes).contains(text).then_some(()).ok_or_else(|| anyhow!("not printed yet"))
        })
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Still running at the deadline.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait::eventually(deadline, &format!("the end of {name}"), || self.ended().ok_or("still running"))
            .with_context(|| self.tail())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// Still running at the deadline (it is then killed when dropped).
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait_end(deadline)
    }

    /// SIGKILL, and reaps it: returns when the process is gone.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do about a failure here: the process has gone already.
        let _ = self.kill9();
    }
}
