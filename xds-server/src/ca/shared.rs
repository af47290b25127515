//! The root in a Secret, for replicas that must all sign with the same one.
//!
//! The files of the state directory stay what the [`Keeper`](super::Keeper) reads; here they are made from the Secret, and made anew when
//! it changes. Of replicas that start together without a Secret, one makes it; the others take that one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use weft_identity::signer::Signer;
use weft_kubernetes::Client;
use weft_kubernetes::files::{Files, FilesError, SharedSecret, publish};
use weft_runtime::shared::Reader;

use super::files::{RootError, make_directory, read, remove, replace};
use super::pair::make;

/// The Secret's name. A cluster that brings its own root mounts that one instead (`--ca-cert`).
pub const SECRET: &str = "weft-ca";
/// The ConfigMap with the roots that agents begin with.
pub const ROOTS: &str = "weft-root-cert";
/// The file of a root that signs, in the Secret and in the directory `ca`.
const ROOT: &str = "root.pem";
/// All files of a root and its rotation.
const NAMES: [&str; 3] = [ROOT, "next.pem", "old.pem"];
/// How often the Secret is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// After an API server that did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The Secret.
    #[error(transparent)]
    Secret(#[from] FilesError),
    /// The files.
    #[error(transparent)]
    Files(#[from] RootError),
    /// A Secret without a root: somebody else's, or one that was emptied.
    #[error(
        "the Secret {SECRET} has no '{ROOT}': restore it, or delete the Secret to make a new root (pods then renew their certificates)"
    )]
    Empty,
}

/// Brings the files of the Secret into the state directory; makes the Secret if there is none.
///
/// # Errors
/// [`SharedError`].
pub async fn fetch(
    secret: &SharedSecret,
    state_dir: &Path,
    trust_domain: &str,
    now: SystemTime,
) -> Result<(), SharedError> {
    let files = match secret.read().await? {
        Some(files) => files,
        None => {
            let path = state_dir.join("ca").join(ROOT);
            let ours = Files::from([(ROOT.to_owned(), make(trust_domain, &path, now)?)]);
            if secret.create(&ours).await? {
                tracing::info!(secret = SECRET, "made a new root certificate");
                ours
            } else {
                secret.read().await?.unwrap_or_default()
            }
        }
    };
    if !files.contains_key(ROOT) {
        return Err(SharedError::Empty);
    }
    put(state_dir, &files)?;
    Ok(())
}

/// Follows the Secret for ever.
pub async fn follow(secret: SharedSecret, state_dir: PathBuf) {
    loop {
        tokio::time::sleep(LOOK).await;
        match secret.read().await {
            Ok(Some(files)) if files.contains_key(ROOT) => {
                if let Err(error) = put(&state_dir, &files) {
                    tracing::error!(%error, "the root of the Secret cannot be taken in; signing as before");
                }
            }
            Ok(_) => tracing::error!(secret = SECRET, "the Secret of the root is gone or empty; signing as before"),
            Err(error) => tracing::warn!(%error, "the Secret of the root cannot be read; signing as before"),
        }
    }
}

/// Keeps the ConfigMap of the roots true for ever.
pub async fn publish_roots(client: Client, namespace: String, mut signer: Reader<Signer>) {
    loop {
        let texts = BTreeMap::from([("root-cert.pem".to_owned(), signer.load().roots().to_pem())]);
        match publish(&client, &namespace, ROOTS, &texts).await {
            Ok(()) => {
                if signer.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the roots cannot be published; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Writes what differs, and removes what is no more.
fn put(state_dir: &Path, files: &Files) -> Result<(), RootError> {
    let directory = state_dir.join("ca");
    make_directory(&directory, 0o700)?;
    for name in NAMES {
        let path = directory.join(name);
        match files.get(name) {
            Some(bytes) if read(&path, None).is_ok_and(|text| text.as_bytes() == bytes) => {}
            Some(bytes) => replace(&path, bytes, 0o600)?,
            None => remove(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Files, put};

    #[test]
    fn the_directory_has_what_the_secret_has() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let files =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect::<Files>();
        put(&state, &files(&["root.pem", "next.pem", "foreign"])).unwrap();
        let there = |name: &str| std::fs::read_to_string(state.join("ca").join(name)).ok();
        assert_eq!((there("next.pem").as_deref(), there("foreign")), (Some("next.pem"), None));
        put(&state, &files(&["root.pem", "old.pem"])).unwrap();
        assert_eq!(
            (there("root.pem").as_deref(), there("next.pem"), there("old.pem").as_deref()),
            (Some("root.pem"), None, Some("old.pem"))
        );
    }
}
