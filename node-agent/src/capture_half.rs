//! The start of the capture half. It is a program of its own beside `weft-node-agent`, which becomes it when asked for
//! `capture`: the privileged half then has no code in it that meets a network (no TLS, no HTTP, no gRPC), and a third of the
//! pages. Where that file is not there, `weft-node-agent` is the capture half itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use thiserror::Error;
use weft_runtime::logging;

use crate::capture::command::{self, CaptureOptions, CommandError};
use crate::capture::status::StatusHandle;
use crate::config::{Arguments, CommonOptions, Half, OneHalf};
use crate::supervise;

/// The name of its program, in the directory of `weft-node-agent`.
pub const PROGRAM: &str = "weft-node-agent-capture";

/// Why it ended with an error.
#[derive(Debug, Error)]
pub enum CaptureHalfError {
    /// The log filter cannot be read.
    #[error(transparent)]
    Logging(#[from] logging::Error),
    /// Its end cannot be tied to that of `weft-node-agent run`.
    #[error("cannot follow the program that started it: {0}")]
    Supervisor(#[source] io::Error),
    /// What it does.
    #[error(transparent)]
    Capture(#[from] CommandError),
    /// The program of the capture half alone was asked for something else.
    #[error("this is the capture half alone; `weft-node-agent` runs everything else")]
    AnotherHalf,
}

/// Becomes [`PROGRAM`] with the same arguments, where that is to be had; returns where it is not.
pub fn become_program() {
    let program = std::env::current_exe().map(|own| own.with_file_name(PROGRAM));
    if let Some(program) = program.ok().filter(|program| program.is_file()) {
        // An error, such as a file that may not be run here: this program can do it as well.
        let _error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    }
}

/// Runs the capture half until a signal, as `capture` or as a child of `run`.
///
/// # Errors
/// For the terminal.
pub fn run(arguments: Arguments) -> Result<(), CaptureHalfError> {
    match arguments.half {
        Half::Capture { common, capture } => start(&common, &capture),
        Half::Run { common, mut capture, proxy, only: Some(OneHalf::Capture), .. } => {
            supervise::end_with_supervisor().map_err(CaptureHalfError::Supervisor)?;
            // The socket between the halves belongs to the user that the other half becomes.
            if nix::unistd::geteuid().is_root() {
                capture.proxy_uid.get_or_insert(proxy.run_as);
            }
            start(&common, &capture)
        }
        Half::Proxy { .. } | Half::Run { .. } | Half::CniInstall { .. } => Err(CaptureHalfError::AnotherHalf),
    }
}

fn start(common: &CommonOptions, options: &CaptureOptions) -> Result<(), CaptureHalfError> {
    logging::init(&common.log, common.log_format.into())?;
    Ok(command::run(&common.node, &common.handover, options, StatusHandle::default())?)
}
