//! Runs small commands to their end and turns a failure into words.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command and gives its standard output.
///
/// # Errors
/// It cannot be started, or fails (with its standard error).
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// As [`run`], with a text on its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| {
        format!("cannot run {}: is it installed? `make cluster-up` does that", command.get_program().to_string_lossy())
    })?;
    let mut stdin = child.stdin.take().context("standard input was piped")?;
    let input = input.as_bytes().to_vec();
    // Beside reading its output: either may be longer than a pipe.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    // Whoever does not read all of it has said why by its exit status.
    let _ = writer.join();
    if !output.status.success() {
        bail!("{command:?} failed with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Several commands of one program, a line each, such as those of `ip -batch`.
///
/// # Errors
/// The first that fails.
pub fn lines(program: &[&str], text: &str) -> Result<()> {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (first, rest) = program.split_first().context("a program has a name")?;
        run(Command::new(first).args(rest).args(line.split_whitespace()))?;
    }
    Ok(())
}
