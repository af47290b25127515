//! The root's files.
//!
//! ```text
//! STATE_DIR/ca/           0700
//! STATE_DIR/ca/root.pem   0600  certificate and key in one file, so that there is never one without the other: signs
//! STATE_DIR/ca/next.pem   0600  the same of a root that will sign: there while everybody learns to trust it
//! STATE_DIR/ca/old.pem    0600  certificate of a root that signed: there while certificates of it live
//! STATE_DIR/root-cert.pem 0644  all roots that peers shall accept: for the agents' --roots
//! ```
//! The first root is made once, at the first start, and replaced by a [rotation](super::rotate) only: losing it means that
//! every node must be given the new one.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use weft_identity::signer::{LeafLifetime, SignError, Signer};

use super::files::{ANYBODY_ELSE, OTHERS, RootError, create, exists, make_directory, mode_of, read, replace, unusable};
use super::given::{Given, Texts};
use super::pair::{certificate_block, key_block, make, read_pair};
use super::rotate::{next_path, old_path, root_path};

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// Made at the first start and kept in the state directory.
    Own,
    /// Kept in the state directory as well, by whoever shares it with other replicas ([`super::shared`]): a rotation goes on when the shared
    /// files say so, for all replicas at once, and never by the clock of one.
    Shared,
    /// Given by `--ca-cert` and `--ca-key`.
    Given {
        /// The signing certificate, then its issuers up to the root, PEM.
        certificate: PathBuf,
        /// Its key, PEM; nobody but owner and group may read it.
        key: PathBuf,
        /// More roots that peers shall accept, PEM: the next one before it signs, the last one after.
        more_roots: Option<PathBuf>,
    },
}

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
        RootSource::Given { certificate, key, more_roots } => {
            given_signer(&Given::new(given(certificate, key, more_roots.as_deref())?), lifetime, now)
                .map_err(|error| unusable(certificate, error))?
        }
        RootSource::Own | RootSource::Shared => own(state_dir, trust_domain, lifetime, now)?,
    };
    write_roots(state_dir, &signer)?;
    Ok(signer)
}

/// For the agents.
pub(super) fn write_roots(state_dir: &Path, signer: &Signer) -> Result<(), RootError> {
    replace(&state_dir.join("root-cert.pem"), signer.roots().to_pem().as_bytes(), 0o644)
}

/// The files of a given root.
pub(super) fn given(certificate: &Path, key: &Path, more_roots: Option<&Path>) -> Result<Texts, RootError> {
    let more = more_roots.map(|path| read(path, None)).transpose()?;
    Ok(Texts { chain: read(certificate, None)?, key: read(key, Some(OTHERS))?, more })
}

/// What a given root makes, in whatever state it is.
pub(super) fn given_signer(given: &Given, lifetime: LeafLifetime, now: SystemTime) -> Result<Signer, SignError> {
    let Texts { chain, key, .. } = given.signs();
    Signer::load(chain, key, given.more().as_deref(), lifetime, now)
}

/// The files of a source whose change means that it must be loaded again.
pub(super) fn files_of(state_dir: &Path, source: &RootSource) -> Vec<PathBuf> {
    match source {
        RootSource::Own | RootSource::Shared => vec![root_path(state_dir), next_path(state_dir), old_path(state_dir)],
        RootSource::Given { certificate, key, more_roots } => {
            [certificate, key].into_iter().chain(more_roots).cloned().collect()
        }
    }
}

fn own(state_dir: &Path, trust_domain: &str, lifetime: LeafLifetime, now: SystemTime) -> Result<Signer, RootError> {
    let directory = state_dir.join("ca");
    make_directory(&directory, 0o700)?;
    let mode = mode_of(&directory)?;
    if mode & ANYBODY_ELSE != 0 {
        return Err(RootError::Open { path: directory, mode, wanted: "0700" });
    }
    let path = root_path(state_dir);
    if !exists(&path)? {
        create(&path, &make(trust_domain, &path, now)?)?;
        tracing::info!(path = %path.display(), "made a new root certificate");
    }
    let text = read_pair(&path)?;
    let (next, old) = (next_path(state_dir), old_path(state_dir));
    let next = exists(&next)?.then(|| read_pair(&next)).transpose()?;
    let old = exists(&old)?.then(|| read(&old, Some(ANYBODY_ELSE))).transpose()?;
    signer_of(&text, next.as_deref(), old.as_deref(), lifetime, now).map_err(|error| unusable(&path, error))
}

/// Signs with `root` and hands out the roots of all three, wherever a rotation is.
pub(super) fn signer_of(
    root: &str,
    next: Option<&str>,
    old: Option<&str>,
    lifetime: LeafLifetime,
    now: SystemTime,
) -> Result<Signer, SignError> {
    let more: String = [next, old].into_iter().flatten().map(certificate_block).collect();
    let more = (next.is_some() || old.is_some()).then_some(&*more);
    Signer::load(&certificate_block(root), &key_block(root), more, lifetime, now)
}

#[cfg(test)]
mod tests;
