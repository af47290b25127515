//! The root's files.
//!
//! ```text
//! STATE_DIR/ca/           0700
//! STATE_DIR/ca/root.pem   0600  certificate and key in one file, so that there is never one without the other
//! STATE_DIR/root-cert.pem 0644  all roots that peers shall accept: for the agents' --roots
//! ```
//! A root is made once, at the first start, and never overwritten: losing it means that every node must be given the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use weft_identity::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, SignError, Signer};

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// Made at the first start and kept in the state directory.
    Own,
    /// Given by `--ca-cert` and `--ca-key`.
    Given {
        /// The signing certificate, then its issuers up to the root, PEM.
        certificate: PathBuf,
        /// Its key, PEM; nobody but owner and group may read it.
        key: PathBuf,
    },
}

/// A root is a few KiB; a bigger file is something else.
const MAX_FILE: u64 = 1024 * 1024;

/// Mode bits of group and others.
const ANYBODY_ELSE: u32 = 0o077;
/// Mode bits of others: a given key may be for a group, as Kubernetes mounts secrets with fsGroup.
const OTHERS: u32 = 0o007;

/// Loads the CA, or makes it, and writes the roots for the agents.
///
/// # Errors
/// Says which file is wrong, and what to do.
pub fn load(
    state_dir: &Path,
    source: &RootSource,
    trust_domain: &str,
    lifetime: LeafLifetime,
    now: SystemTime,
) -> Result<Signer, RootError> {
    make_directory(state_dir, 0o755)?;
    let signer = match source {
        RootSource::Given { certificate, key } => {
            let chain = read(certificate, None)?;
            let secret = read(key, Some(OTHERS))?;
            Signer::load(&chain, &secret, None, lifetime, now).map_err(|error| unusable(certificate, error))?
        }
        RootSource::Own => own(state_dir, trust_domain, lifetime, now)?,
    };
    publish(&state_dir.join("root-cert.pem"), signer.roots().to_pem().as_bytes())?;
    Ok(signer)
}

fn own(state_dir: &Path, trust_domain: &str, lifetime: LeafLifetime, now: SystemTime) -> Result<Signer, RootError> {
    let directory = state_dir.join("ca");
    make_directory(&directory, 0o700)?;
    let mode = mode_of(&directory)?;
    if mode & ANYBODY_ELSE != 0 {
        return Err(RootError::Open { path: directory, mode, wanted: "0700" });
    }
    let path = directory.join("root.pem");
    if !path.try_exists().map_err(|error| io_error(&path, error))? {
        let root = RootMaterial::create(trust_domain, DEFAULT_ROOT_TTL, now).map_err(|error| unusable(&path, error))?;
        let text = format!("{}{}", root.certificate_pem, root.key_pem.as_str());
        create(&path, text.as_bytes())?;
        tracing::info!(path = %path.display(), "made a new root certificate");
    }
    let text = read(&path, Some(ANYBODY_ELSE))?;
    for block in ["CERTIFICATE", "PRIVATE KEY"] {
        if !text.contains(&format!("-----END {block}-----")) {
            return Err(RootError::Half { path, missing: block });
        }
    }
    Signer::load(&text, &key_block(&text), None, lifetime, now).map_err(|error| unusable(&path, error))
}

/// The part of a file from its private key on.
fn key_block(text: &str) -> String {
    text.find("-----BEGIN PRIVATE KEY-----").map_or_else(String::new, |at| text[at..].to_owned())
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RootError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| io_error(path, error))
}

fn mode_of(path: &Path) -> Result<u32, RootError> {
    let metadata = fs::metadata(path).map_err(|error| io_error(path, error))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// Reads a small text file. `forbidden` are mode bits that a secret must not have, checked on the file that is read.
fn read(path: &Path, forbidden: Option<u32>) -> Result<String, RootError> {
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
fn create(path: &Path, content: &[u8]) -> Result<(), RootError> {
    let temporary = write_beside(path, content, 0o600)?;
    let linked = fs::hard_link(&temporary, path); // unlike rename it does not replace
    fs::remove_file(&temporary).map_err(|error| io_error(&temporary, error))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(path, error)),
        _ => sync_directory(path),
    }
}

/// Writes a public file, complete or not at all, over an old one.
fn publish(path: &Path, content: &[u8]) -> Result<(), RootError> {
    let temporary = write_beside(path, content, 0o644)?;
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

/// Makes a new name last over a power cut.
fn sync_directory(of: &Path) -> Result<(), RootError> {
    let directory = of.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| file.sync_all()).map_err(|error| io_error(directory, error))
}

fn unusable(path: &Path, error: SignError) -> RootError {
    RootError::Unusable { path: path.to_owned(), error: Box::new(error) }
}

fn io_error(path: &Path, error: io::Error) -> RootError {
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

#[cfg(test)]
mod tests;
