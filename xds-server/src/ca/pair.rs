//! A root in one file: its certificate, then its key, PEM.

use std::path::Path;
use std::time::SystemTime;

use weft_identity::signer::{DEFAULT_ROOT_TTL, RootMaterial};

use super::files::{ANYBODY_ELSE, RootError, read, unusable};

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

/// A new root, certificate and key in one text.
pub(super) fn make(trust_domain: &str, path: &Path, now: SystemTime) -> Result<Vec<u8>, RootError> {
    let root = RootMaterial::create(trust_domain, DEFAULT_ROOT_TTL, now).map_err(|error| unusable(path, error))?;
    Ok(format!("{}{}", root.certificate_pem, root.key_pem.as_str()).into_bytes())
}

/// A file with certificate and key.
pub(super) fn read_pair(path: &Path) -> Result<String, RootError> {
    let text = read(path, Some(ANYBODY_ELSE))?;
    for block in ["CERTIFICATE", "PRIVATE KEY"] {
        if !text.contains(&format!("-----END {block}-----")) {
            return Err(RootError::Half { path: path.to_owned(), missing: block });
        }
    }
    Ok(text)
}

/// The part of a file from its private key on.
pub(super) fn key_block(text: &str) -> String {
    text.find(KEY_BEGINS).map_or_else(String::new, |at| text[at..].to_owned())
}

/// The part of a file before its private key.
pub(super) fn certificate_block(text: &str) -> String {
    text.split(KEY_BEGINS).next().unwrap_or_default().to_owned()
}
