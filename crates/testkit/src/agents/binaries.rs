//! Finds programs: ours beside the running one, other people's on the PATH.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Set by whoever keeps the programs elsewhere.
const DIRECTORY: &str = "WEFT_BIN_DIR";

/// The path of one of our programs: in $WEFT_BIN_DIR, else beside this program (for a test: above its `deps`).
///
/// # Errors
/// It has not been built; says how.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = match env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory),
        None => {
            let own = env::current_exe()?;
            let directory = own.parent().context("a program lies in a directory")?;
            if directory.ends_with("deps") {
                directory.parent().context("deps has a parent")?.into()
            } else {
                directory.into()
            }
        }
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!("{} has not been built: run `cargo build --workspace --bins`, or set {DIRECTORY}", path.display());
    }
    Ok(path)
}

/// The path of a program that is not ours.
///
/// # Errors
/// It is not installed; names `make setup`.
pub fn require_system_program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Ordinary users often lack the sbin directories in their PATH, where nginx and iptables are.
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed: `make setup` does that"))
}
