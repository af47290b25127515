//! The CA's files: secrets that nobody else may read, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use weft_identity::signer::SignError;

/// A root is a few KiB; a bigger file is something else.
const MAX_FILE: u64 = 1024 * 1024;

/// Mode bits of group and others.
pub(super) const ANYBODY_ELSE: u32 = 0o077;
/// Mode bits of others: a given key may be for a group, as Kubernetes mounts secrets with fsGroup.
pub(super) const OTHERS: u32 = 0o007;

pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), RootError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| io_error(path, error))
}

pub(super) fn mode_of(path: &Path) -> Result<u32, RootError> {
    let metadata = fs::metadata(path).map_err(|error| io_error(path, error))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// Reads a small text file. `forbidden` are mode bits that a secret must not have, checked on the file that is read.
pub(super) fn read(path: &Path, forbidden: Option<u32>) -> Result<String, RootError> {
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    let metadata = file.metadata().map_err(|error| io_error(path, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if forbidden.is_some_and(|bits| mode & bits != 0) {
        return Err(RootError::Open { path: path.to_owned(), mode, wanted: "0600" });
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| io_error(path, error))?;
    Ok(text)
}

/// Creates a secret file, complete or not at all. One that appeared meanwhile (a second server on the same directory) stays.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), RootError> {
    let temporary = write_beside(path, content, 0o600)?;
    let linked = fs::hard_link(&temporary, path); // unlike rename it does not replace
    fs::remove_file(&temporary).map_err(|error| io_error(&temporary, error))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(path, error)),
        _ => sync_directory(path),
    }
}

/// Writes a file of this mode, complete or not at all, over an old one.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), RootError> {
    let temporary = write_beside(path, content, mode)?;
    fs::rename(&temporary, path).map_err(|error| io_error(path, error))?;
    sync_directory(path)
}

fn write_beside(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf, RootError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        // What a killed predecessor with our process id left.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?; // whatever the umask says
        file.write_all(content)?;
        file.sync_all()
    })();
    written.map_err(|error| io_error(&temporary, error))?;
    Ok(temporary)
}

/// Gives a file the name of another, which is gone then.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), RootError> {
    fs::rename(from, to).map_err(|error| io_error(to, error))?;
    sync_directory(to)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), RootError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => sync_directory(path),
    }
}

/// Whether a file is there.
pub(super) fn exists(path: &Path) -> Result<bool, RootError> {
    path.try_exists().map_err(|error| io_error(path, error))
}

/// Makes a new name last over a power cut.
pub(super) fn sync_directory(of: &Path) -> Result<(), RootError> {
    let directory = of.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| file.sync_all()).map_err(|error| io_error(directory, error))
}

pub(super) fn unusable(path: &Path, error: SignError) -> RootError {
    RootError::Unusable { path: path.to_owned(), error: Box::new(error) }
}

pub(super) fn io_error(path: &Path, error: io::Error) -> RootError {
    RootError::Io { path: path.to_owned(), error }
}

/// Why there is no CA. The server does not start.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The file system says no.
    #[error("{}: {error}; the server must be able to write in --state-dir, and to read --ca-cert and --ca-key where given", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A secret that others may read.
    #[error("{} has mode {mode:04o}, so others could read the CA's key; `chmod {wanted}` it, or make a new CA if they did", path.display())]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it should be.
        wanted: &'static str,
    },
    /// A file that lacks its certificate or its key.
    #[error("{} has no {missing}: restore it from a backup, or remove it to make a new root (every node then needs the new root-cert.pem)", path.display())]
    Half {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A root is being rotated already.
    #[error("a root is being rotated already ({0}); wait until it is done")]
    UnderWay(&'static str),
    /// There is nothing to rotate.
    #[error("{} is not there: the server makes a root when it starts for the first time (with --ca-cert, rotate that one)", path.display())]
    NoRoot {
        /// Which file.
        path: PathBuf,
    },
    /// Not a usable CA.
    #[error("{}: {error}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: Box<SignError>,
    },
}
