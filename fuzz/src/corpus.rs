//! Inputs on disk: seeds below `corpus/TARGET`, earlier finds below `regressions/TARGET`, new finds below `artifacts/TARGET`.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// This package's folder.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of one folder of a target, sorted by name; none where the folder is missing.
///
/// # Errors
/// A file cannot be read.
pub fn read(folder: &str, target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let Ok(entries) = fs::read_dir(home().join(folder).join(target)) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
}

/// Names of the targets that have a folder below `folder`; none where it is missing, as `regressions` is until the first find.
///
/// # Errors
/// It cannot be listed.
pub fn folders(folder: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(home().join(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
}

/// Keeps a find below `artifacts`, named after its content.
///
/// # Errors
/// It cannot be written.
pub fn keep(target: &str, input: &[u8]) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let folder = home().join("artifacts").join(target);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{:016x}", hasher.finish()));
    fs::write(&path, input)?;
    Ok(path)
}
