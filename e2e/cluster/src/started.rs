//! Processes that outlive the program which started them: written down with their start time, so that a later command ends
//! exactly these and never another one that has the number by then.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to end after SIGTERM; etcd and the API server need a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that was written down.
#[derive(Debug, Clone)]
pub struct Started {
    file: PathBuf,
}

impl Started {
    /// The process of that file, alive or not.
    #[must_use]
    pub fn of(file: PathBuf) -> Self {
        Self { file }
    }

    /// Starts `command` with its output in `log`, and writes it down.
    ///
    /// # Errors
    /// It cannot be started, or it runs already.
    pub fn start(&self, mut command: Command, log: &Path) -> Result<()> {
        if let Some(pid) = self.alive() {
            bail!("{} runs already, as process {pid}", self.file.display());
        }
        for file in [&*self.file, log] {
            fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
        }
        let output = fs::File::options().create(true).append(true).open(log)?;
        // A group of its own: Ctrl-C ends the command that started it, not the cluster.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        self.note(child.id())
    }

    /// Writes a process down.
    ///
    /// # Errors
    /// It has ended, or the file cannot be written.
    pub fn note(&self, pid: u32) -> Result<()> {
        let since = since(pid).with_context(|| format!("process {pid} ended at once"))?;
        fs::write(&self.file, format!("{pid} {since}\n")).with_context(|| self.file.display().to_string())
    }

    /// Its number, while it lives.
    #[must_use]
    pub fn alive(&self) -> Option<u32> {
        let text = fs::read_to_string(&self.file).ok()?;
        let (pid, noted) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (since(pid)? == noted).then_some(pid)
    }

    /// Ends it and waits until it is gone.
    ///
    /// # Errors
    /// It outlives SIGKILL.
    pub fn end(&self, first: Signal) -> Result<()> {
        for signal in [first, Signal::SIGKILL] {
            let Some(pid) = self.alive() else { break };
            // Gone in between is as good.
            let _ = kill(Pid::from_raw(i32::try_from(pid)?), signal);
            let begin = Instant::now();
            while self.alive().is_some() && begin.elapsed() < PATIENCE {
                crate::wait::pause(Duration::from_millis(10));
            }
        }
        if let Some(pid) = self.alive() {
            bail!("process {pid} ({}) cannot be ended", self.file.display());
        }
        let _ = fs::remove_file(&self.file);
        Ok(())
    }
}

/// When a process began, in clock ticks since boot: with its number, what tells it from all others (proc_pid_stat(5), field 22).
/// `None`: there is none, or only its exit status is left.
fn since(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything; after its `)` come fields 3 and on.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::signal::Signal;

    use super::Started;

    #[test]
    fn a_process_is_found_again_and_ended_and_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let sleeper = Started::of(folder.path().join("pid"));
        let mut command = Command::new("sleep");
        command.arg("1000");
        sleeper.start(command, &folder.path().join("log")).unwrap();
        let pid = Started::of(folder.path().join("pid")).alive().unwrap();
        assert!(
            sleeper
                .start(Command::new("true"), &folder.path().join("log"))
                .unwrap_err()
                .to_string()
                .contains("already")
        );
        sleeper.end(Signal::SIGTERM).unwrap();
        assert_eq!(sleeper.alive(), None);
        // The number with another start time is another process: this very one.
        std::fs::write(folder.path().join("pid"), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(sleeper.alive(), None);
        sleeper.end(Signal::SIGKILL).unwrap();
        assert_ne!(pid, std::process::id());
    }
}
