//! Runs small commands (`ip`, `iptables-restore`) and turns a failure into words.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// It cannot be started (with the hint to install it) or exits with a failure (with its standard error).
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// As [`run`], with `input` on its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| {
        format!("cannot run {}: is it installed? `make setup` does that", command.get_program().to_string_lossy())
    })?;
    // All inputs here are shorter than a pipe (64 KiB) and the programs read before they write.
    child.stdin.take().context("standard input was piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{command:?} failed with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            if input.is_empty() { String::new() } else { format!("its input was:\n{input}") }
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
