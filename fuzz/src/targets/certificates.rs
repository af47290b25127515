//! Certificates of peers, requests for certificates, files of roots.

use std::sync::LazyLock;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use weft_identity::Roots;
use weft_identity::request::VerifiedRequest;
use weft_identity::verify::{Usage, identity_of, verify_chain};

use super::outcome::Outcome;

/// The root that signed `corpus/certificate/signed.der`, and nothing else; its key was thrown away. Good until 2126.
const ROOT: &[u8] = include_bytes!("../../data/root.pem");
/// Whom that certificate names.
const SIGNED_FOR: &str = "spiffe://cluster.local/ns/shop/sa/web";
/// 2027: within the life of both.
const NOW: Duration = Duration::from_secs(1_800_000_000);

static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots::from_pem(ROOT).expect("a root"));

/// A peer's chain: the leaf alone, and the input once more as an intermediate. Whoever is believed is whom our root signed.
pub(super) fn certificate(bytes: &[u8]) -> Outcome {
    let leaf = CertificateDer::from(bytes);
    let named = identity_of(&leaf);
    let mut outcome = Outcome::of(&named);
    for usage in [Usage::Client, Usage::Server] {
        for between in [&[][..], &[leaf.clone()][..]] {
            let believed = verify_chain(&ROOTS, &leaf, between, usage, UnixTime::since_unix_epoch(NOW));
            if let Ok(identity) = &believed {
                assert_eq!(identity.to_string(), SIGNED_FOR, "our root never signed that");
            }
            outcome = outcome.and(Outcome::of(&believed)).past(believed.is_ok());
        }
    }
    outcome
}

/// A request for a certificate, DER or PEM. What is accepted names one identity.
pub(super) fn request(bytes: &[u8]) -> Outcome {
    let read = VerifiedRequest::from_der(bytes).map(|request| request.identity().clone());
    let text = String::from_utf8_lossy(bytes);
    let pem = VerifiedRequest::from_pem(&text).map(|request| request.identity().clone());
    for identity in [&read, &pem].into_iter().flatten() {
        assert_eq!(identity.to_string().parse().as_ref(), Ok(identity));
    }
    Outcome::of(&read).and(Outcome::of(&pem)).past(read.is_ok() || pem.is_ok())
}

/// A file of roots. What is accepted is written and read again.
pub(super) fn roots(bytes: &[u8]) -> Outcome {
    let read = Roots::from_pem(bytes);
    if let Ok(roots) = &read {
        assert!(!roots.certificates().is_empty());
        assert_eq!(Roots::from_pem(roots.to_pem().as_bytes()).as_ref(), Ok(roots));
    }
    let past = read.is_ok();
    Outcome::of(&read.map(|roots| roots.certificates().len().min(3))).past(past)
}
