//! A root in one text: its certificate, then its issuers if it has some, then its key, PEM.

use std::path::Path;
use std::time::SystemTime;

use weft_identity::signer::{DEFAULT_ROOT_TTL, RootMaterial};

use super::files::{ANYBODY_ELSE, RootError, read, unusable};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// A new root, certificate and key in one text.
pub(super) fn make(trust_domain: &str, path: &Path, now: SystemTime) -> Result<Vec<u8>, RootError> {
    let root = RootMaterial::create(trust_domain, DEFAULT_ROOT_TTL, now).map_err(|error| unusable(path, error))?;
    Ok(format!("{}{}", root.certificate_pem, root.key_pem.as_str()).into_bytes())
}

/// A file with certificate and key.
pub(super) fn read_pair(path: &Path) -> Result<String, RootError> {
    let text = read(path, Some(ANYBODY_ELSE))?;
    let missing = if certificate_block(&text).is_empty() {
        Some("CERTIFICATE")
    } else {
        key_block(&text).is_empty().then_some("PRIVATE KEY")
    };
    missing.map_or(Ok(text), |missing| Err(RootError::Half { path: path.to_owned(), missing }))
}

/// The private key of a text; empty if there is none. PKCS#8, or as cert-manager writes it unless told otherwise: `RSA PRIVATE KEY`,
/// `EC PRIVATE KEY`.
pub(super) fn key_block(text: &str) -> String {
    blocks(text)
        .find(|(label, _)| label.ends_with("PRIVATE KEY"))
        .map(|(_, block)| format!("{block}\n"))
        .unwrap_or_default()
}

/// The certificates of a text, and nothing else.
pub(super) fn certificate_block(text: &str) -> String {
    blocks(text).filter(|(label, _)| *label == "CERTIFICATE").map(|(_, block)| format!("{block}\n")).collect()
}

/// A root as a Secret of type `kubernetes.io/tls` has it (cert-manager's, with the `ca.crt` of its issuer): as one text with the issuers
/// behind the signing certificate.
pub(super) fn of_tls(certificate: &str, key: &str, issuer: &str) -> String {
    let mut text = certificate_block(certificate);
    for (_, block) in blocks(issuer) {
        if !text.contains(block) {
            text.push_str(&certificate_block(block));
        }
    }
    text + &key_block(key)
}

/// The whole blocks of a PEM text (RFC 7468), each with its label.
fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = rest.find(BEGIN)?;
        let (label, _) = rest.get(from + BEGIN.len()..)?.split_once(DASHES)?;
        let end = format!("{END}{label}{DASHES}");
        let to = from + rest.get(from..)?.find(&end)? + end.len();
        let block = rest.get(from..to)?;
        rest = rest.get(to..)?;
        Some((label, block))
    })
}

#[cfg(test)]
mod tests {
    use super::{certificate_block, key_block, of_tls};

    fn block(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn certificates_and_keys_are_found_in_any_order_and_a_cut_one_is_none() {
        let (one, two) = (block("CERTIFICATE", "1"), block("CERTIFICATE", "2"));
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
            let key = block(label, "k");
            let text = format!("subject=a\n{}{key}\n{one}words{two}", block("EC PARAMETERS", "p"));
            assert_eq!((certificate_block(&text), key_block(&text)), (format!("{one}{two}"), key.clone()));
            assert_eq!(key_block(&key[..key.len() - 9]), "");
        }
        assert_eq!((certificate_block("-----BEGIN CERT"), key_block("")), (String::new(), String::new()));
    }

    #[test]
    fn an_issuer_stands_behind_what_it_signed_and_a_root_that_is_its_own_issuer_once() {
        let (one, two, key) = (block("CERTIFICATE", "1"), block("CERTIFICATE", "2"), block("PRIVATE KEY", "k"));
        assert_eq!(of_tls(&one, &key, &two), format!("{one}{two}{key}"));
        assert_eq!(of_tls(&one, &key, &one), format!("{one}{key}"));
        assert_eq!(of_tls(&format!("{one}{two}"), &key, &two), format!("{one}{two}{key}"));
        assert_eq!(of_tls(&one, &key, ""), format!("{one}{key}"));
    }
}
