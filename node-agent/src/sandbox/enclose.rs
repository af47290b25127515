//! Puts both walls up, and tells what stands.

use std::fmt;

use clap::ValueEnum;
use thiserror::Error;

use super::calls::{self, CallsError};
use super::files::{self, FilesError, Readable};

/// What is asked of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// What the kernel has; what it has not is said in the log.
    BestEffort,
    /// Both walls, or the program does not start (Landlock: Linux 5.13, in the kernel's list of security modules).
    Required,
    /// None.
    Off,
}

/// What is in force for the calling thread and every thread that it starts, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enclosure {
    /// Landlock's version, if files are walled off.
    files: Result<String, String>,
    /// How many calls there still are, if calls are filtered.
    calls: Result<String, String>,
}

/// The sandbox was required and cannot be had.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No wall around files.
    #[error("the sandbox cannot be had (--sandbox best-effort does without): {0}")]
    Files(#[from] FilesError),
    /// No filter of calls.
    #[error("the sandbox cannot be had (--sandbox best-effort does without): {0}")]
    Calls(#[from] CallsError),
}

/// Encloses the calling thread and all that it starts later. Must run before other threads exist and after capabilities
/// were given up: neither can be done afterwards.
///
/// # Errors
/// Only with [`Mode::Required`].
pub fn enclose(mode: Mode, readable: &Readable) -> Result<Enclosure, SandboxError> {
    if mode == Mode::Off {
        let off = || Err("switched off (--sandbox off)".to_owned());
        return Ok(Enclosure { files: off(), calls: off() });
    }
    // Files first: the filter of calls has no call for Landlock.
    let files = files::restrict(readable);
    let calls = calls::restrict();
    if mode == Mode::Required {
        return Ok(Enclosure { files: Ok(files?), calls: Ok(calls?) });
    }
    Ok(Enclosure { files: files.map_err(|error| error.to_string()), calls: calls.map_err(|error| error.to_string()) })
}

impl Enclosure {
    /// Says what stands, and warns of what does not.
    pub fn log(&self) {
        if self.is_whole() {
            tracing::info!("sandbox: {self}");
        } else {
            tracing::warn!("sandbox: {self}");
        }
    }

    /// Both walls stand.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.has_files() && self.has_calls()
    }

    /// The wall around files stands (Landlock).
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.files.is_ok()
    }

    /// The filter of calls stands (seccomp).
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.calls.is_ok()
    }
}

impl fmt::Display for Enclosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |wall: &Result<String, String>| match wall {
            Ok(what) => what.clone(),
            Err(why) => format!("NO ({why})"),
        };
        write!(f, "files: {}; calls: {}", say(&self.files), say(&self.calls))
    }
}
