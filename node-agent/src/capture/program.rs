//! The `iptables` programs: which of them work here, and running them.
//!
//! Works in the network namespace of the calling thread, which a child process inherits.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use thiserror::Error;

use crate::handover::Family;

/// Where the programs are looked for: a service's PATH often lacks the sbin directories.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];

/// Seconds to wait for another program that holds the lock of iptables-legacy.
const LOCK_WAIT: &str = "5";

/// Which kernel interface the programs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nf_tables; preferred, needs no CAP_NET_RAW.
    Nft,
    /// ip_tables.
    Legacy,
    /// Programs without a suffix: whatever the distribution chose.
    Plain,
}

impl Backend {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Nft, Self::Legacy, Self::Plain];

    fn infix(self) -> &'static str {
        match self {
            Self::Nft => "-nft",
            Self::Legacy => "-legacy",
            Self::Plain => "",
        }
    }
}

/// Why the packet filter cannot be changed. Every message names the next step.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// No program at all.
    #[error("no iptables-restore found in {}: install the package iptables (nft or legacy back end)", DIRECTORIES.join(", "))]
    Absent,
    /// Not allowed.
    #[error("{program}: {message}; run with CAP_NET_ADMIN (iptables-legacy needs CAP_NET_RAW too)")]
    Privilege {
        /// Which program.
        program: String,
        /// What it said.
        message: String,
    },
    /// Kernel or program lack a part that the rules need.
    #[error(
        "{program}: {message}; the kernel needs TPROXY, socket, owner, mark, connmark and REJECT (modules xt_TPROXY, xt_socket, xt_owner, xt_mark, xt_connmark, ipt_REJECT, ip6t_REJECT)"
    )]
    Unsupported {
        /// Which program.
        program: String,
        /// What it said.
        message: String,
    },
    /// Anything else that it said.
    #[error("{program}: {message}")]
    Failed {
        /// Which program.
        program: String,
        /// What it said.
        message: String,
    },
    /// It could not be started.
    #[error("cannot run {program}: {source}")]
    Io {
        /// Which program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The programs of one back end.
#[derive(Clone, Debug)]
pub struct Programs {
    backend: Backend,
    lock: PathBuf,
}

impl Programs {
    /// The programs of a back end, or none where one of the four is missing. `lock` is a file that this process may
    /// write: the usual place, /run/xtables.lock, often is not ours.
    #[must_use]
    pub fn find(backend: Backend, lock: &Path) -> Option<Self> {
        let programs = Self { backend, lock: lock.to_path_buf() };
        let all = [Family::V4, Family::V6]
            .into_iter()
            .flat_map(|family| [programs.name(family, "save"), programs.name(family, "restore")]);
        all.into_iter().all(|name| locate(&name).is_some()).then_some(programs)
    }

    /// Which back end.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// `iptables-save -t TABLE`.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn save(&self, family: Family, table: &str) -> Result<String, ProgramError> {
        let name = self.name(family, "save");
        let output = self.command(&name)?.args(["-t", table]).stdin(Stdio::null()).output();
        let output = judge(&name, output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `iptables-restore --noflush` of `text`: all of it or nothing.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn restore(&self, family: Family, text: &str) -> Result<(), ProgramError> {
        let name = self.name(family, "restore");
        let mut command = self.command(&name)?;
        command
            .args(["--noflush", "-w", LOCK_WAIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        judge(&name, feed(&mut command, text)).map(drop)
    }

    fn name(&self, family: Family, verb: &str) -> String {
        let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
        format!("{program}{}-{verb}", self.backend.infix())
    }

    fn command(&self, name: &str) -> Result<Command, ProgramError> {
        let mut command = Command::new(locate(name).ok_or(ProgramError::Absent)?);
        command.env("XTABLES_LOCKFILE", &self.lock).env("LC_ALL", "C").current_dir("/");
        Ok(command)
    }
}

/// The `nft` program, for the guard of its own.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
}

impl Nft {
    /// The program, where there is one.
    #[must_use]
    pub fn find() -> Option<Self> {
        locate("nft").map(|program| Self { program })
    }

    /// `nft -f -` of `script`: all of it or nothing.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn run(&self, script: &str) -> Result<(), ProgramError> {
        let mut command = self.command();
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        judge("nft", feed(&mut command, script)).map(drop)
    }

    /// A table of ours as it stands, numbers as numbers and without counters; none when it does not exist.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn list(&self, table: &str) -> Result<Option<String>, ProgramError> {
        let mut command = self.command();
        let output = command.args(["-s", "-n", "list", "table", "inet", table]).stdin(Stdio::null()).output();
        match judge("nft", output) {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
            // "Error: No such file or directory", the kernel's ENOENT for the table.
            Err(ProgramError::Unsupported { message, .. }) if message.contains("No such file or directory") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all tables and chains that the kernel filters by, those of iptables-nft included, as nft prints them.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn chains(&self) -> Result<String, ProgramError> {
        let output = self.command().args(["list", "chains"]).stdin(Stdio::null()).output();
        judge("nft", output).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LC_ALL", "C").current_dir("/");
        command
    }
}

/// Runs a program that reads `text`.
fn feed(command: &mut Command, text: &str) -> io::Result<Output> {
    let mut child = command.spawn()?;
    // A program that refuses early closes its input: its own words then say more than our write error.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() { written.map(|()| output) } else { Ok(output) }
}

fn locate(name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
}

fn judge(program: &str, output: io::Result<Output>) -> Result<Output, ProgramError> {
    let program = program.to_owned();
    match output {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => Err(classify(program, String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "))),
        Err(source) => Err(ProgramError::Io { program, source }),
    }
}

/// The programs know only one exit code for everything, so their words decide.
fn classify(program: String, message: String) -> ProgramError {
    let says = |needles: &[&str]| needles.iter().any(|needle| message.contains(needle));
    if says(&["Permission denied", "Operation not permitted", "you must be root", "Could not open socket to kernel"]) {
        ProgramError::Privilege { program, message }
    } else if says(&[
        "No chain/target/match by that name",
        "Couldn't load",
        "not supported",
        "unable to initialize table",
        "can't initialize",
        "No such file or directory",
        "Table does not exist",
        "Extension",
    ]) {
        ProgramError::Unsupported { program, message }
    } else {
        ProgramError::Failed { program, message }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "iptables-restore v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
        "privilege"
    )]
    #[case("iptables-legacy-restore v1.8.9: can't initialize iptables table `mangle': Permission denied", "privilege")]
    #[case("Warning: Extension TPROXY revision 0 not supported, missing kernel module?", "unsupported")]
    #[case("iptables-restore: line 5 failed: No chain/target/match by that name.", "unsupported")]
    #[case("iptables-restore v1.8.9: unable to initialize table 'mangle'", "unsupported")]
    #[case("iptables-restore: line 3 failed", "failed")]
    fn words_become_kinds(#[case] words: &str, #[case] kind: &str) {
        let error = classify("iptables-restore".into(), words.into());
        let found = match &error {
            ProgramError::Privilege { .. } => "privilege",
            ProgramError::Unsupported { .. } => "unsupported",
            _ => "failed",
        };
        assert_eq!(found, kind);
        assert!(error.to_string().contains(words));
    }
}
