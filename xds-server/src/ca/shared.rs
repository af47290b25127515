//! The root in a Secret, for replicas that must all sign with the same one.
//!
//! The files of the state directory stay what the [`Keeper`](super::Keeper) reads; here they are made from the Secret. Of replicas that
//! start together without a Secret, one makes it; the others take that one. [`super::steward`] follows it from then on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use weft_identity::signer::{LeafLifetime, Signer};
use weft_kubernetes::Client;
use weft_kubernetes::files::{Files, FilesError, SharedSecret, publish};
use weft_runtime::shared::Reader;

use super::files::{RootError, make_directory, read, remove, replace};
use super::next_step::{self, NEXT, OLD, ROOT};
use super::pair::make;
use super::root::signer_of;

/// The Secret's name. A cluster that brings its own root as files mounts another one (`--ca-cert`).
pub use weft_kubernetes::rotation::SECRET;
/// The ConfigMap with the roots that agents begin with.
pub const ROOTS: &str = "weft-root-cert";
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
        "the Secret {SECRET} has neither '{ROOT}' nor 'tls.crt' and 'tls.key': restore it, or delete the Secret to make a new root (pods then renew their certificates)"
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
    let held = match secret.read().await? {
        Some(held) => Some(held.files()),
        None => {
            let path = state_dir.join("ca").join(ROOT);
            let ours = Files::from([(ROOT.to_owned(), make(trust_domain, &path, now)?)]);
            if secret.create(&ours).await? {
                tracing::info!(secret = SECRET, "made a new root certificate");
                Some(ours)
            } else {
                secret.read().await?.map(|held| held.files())
            }
        }
    };
    put(state_dir, &in_force(held.unwrap_or_default(), state_dir, now)?)?;
    Ok(())
}

/// The files of the Secret that count ([`next_step::in_force`]).
pub(super) fn in_force(files: Files, state_dir: &Path, now: SystemTime) -> Result<Files, SharedError> {
    // A life of any length: the question is whether it signs.
    let is_usable = |root: &str| signer_of(root, None, None, LeafLifetime::default(), now).is_ok();
    let remembered = read(&state_dir.join("ca").join(ROOT), None).ok();
    next_step::in_force(files, remembered, is_usable).ok_or(SharedError::Empty)
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

/// Writes what differs, and then removes what is no more. In between and in this order no root is missing that peers shall accept.
pub(super) fn put(state_dir: &Path, files: &Files) -> Result<(), RootError> {
    let directory = state_dir.join("ca");
    make_directory(&directory, 0o700)?;
    let names = [OLD, NEXT, ROOT].map(|name| (directory.join(name), files.get(name)));
    for (path, bytes) in &names {
        if let Some(bytes) = bytes
            && !read(path, None).is_ok_and(|text| text.as_bytes() == *bytes)
        {
            replace(path, bytes, 0o600)?;
        }
    }
    for (path, _) in names.iter().filter(|(_, bytes)| bytes.is_none()) {
        remove(path)?;
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
