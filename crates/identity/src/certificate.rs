//! A certificate with all that belongs to it: [`Credentials`], made of the CA's answer, complete and checked or not at all.
//!
//! The answer is a list of PEM texts: leaf, intermediates one each, the last element the roots, maybe several concatenated
//! (`istio.v1.auth`). Who holds credentials holds a leaf whose key is ours, whose identity is the asked one and
//! whose chain leads to one of its roots.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CommonState;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use weft_model::{Reason, SpiffeId};

use crate::request::PrivateKey;
use crate::verify::{Roots, Usage, VerifyError, unix_time, verify_chain};

/// From when to when a certificate is valid, both ends included (RFC 5280 section 4.1.2.5), whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether it is over.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Whether it holds now.
    #[must_use]
    pub fn contains(&self, now: SystemTime) -> bool {
        now >= self.not_before && !self.is_expired(now)
    }

    /// How long it still holds; zero when it is over.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// The middle of the time: when to renew (as ztunnel).
    #[must_use]
    pub fn half_life(&self) -> SystemTime {
        self.not_before + self.not_after.duration_since(self.not_before).unwrap_or_default() / 2
    }
}

/// One workload's certificate, key and roots. Immutable; a renewal makes new ones.
pub struct Credentials {
    identity: SpiffeId,
    certified: Arc<CertifiedKey>,
    roots: Arc<Roots>,
    validity: Validity,
    serial: String,
}

impl Credentials {
    /// Takes the CA's answer to a request for `asked` made with `key`.
    ///
    /// # Errors
    /// Says what is wrong with the answer: unreadable, another identity, another key, not valid now, not signed by its roots.
    pub fn from_response(
        asked: &SpiffeId,
        key: &PrivateKey,
        response: &[String],
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let Some((roots, chain)) = response.split_last() else { return Err(CertificateError::TooShort(0)) };
        let mut certificates = Vec::new();
        for element in chain {
            certificates.append(&mut read_pem(element)?);
        }
        let Some((leaf, intermediates)) = certificates.split_first() else {
            return Err(CertificateError::TooShort(response.len()));
        };
        let roots = Roots::new(read_pem(roots)?).map_err(CertificateError::Chain)?;
        let (validity, serial) = read_leaf(leaf)?;
        if !validity.contains(now) {
            return Err(CertificateError::NotNow { validity, now });
        }
        let identity = verify_chain(&roots, leaf, intermediates, Usage::Client, unix_time(now))
            .map_err(CertificateError::Chain)?;
        verify_chain(&roots, leaf, intermediates, Usage::Server, unix_time(now)).map_err(CertificateError::Chain)?;
        if identity != *asked {
            return Err(CertificateError::OtherIdentity { asked: asked.clone(), got: identity });
        }
        let signing_key = key.signing_key().map_err(|error| CertificateError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(certificates, signing_key);
        certified.keys_match().map_err(|_| CertificateError::OtherKey)?;
        Ok(Self { identity, certified: Arc::new(certified), roots: Arc::new(roots), validity, serial })
    }

    /// Whose they are.
    #[must_use]
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// From when to when the leaf is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The leaf's serial number in lower case hexadecimal.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What peers are compared with.
    #[must_use]
    pub fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    /// Leaf and intermediates, the leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

fn read_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Encoding(error.to_string()))
}

/// The last moment of the certificate that the other end of a connection has shown; none before the handshake is done.
#[must_use]
pub fn peer_not_after(connection: &CommonState) -> Option<SystemTime> {
    let (validity, _) = read_leaf(connection.peer_certificates()?.first()?).ok()?;
    Some(validity.not_after)
}

/// Validity and serial number of a certificate.
pub(crate) fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Validity, String), CertificateError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| CertificateError::Encoding(error.to_string()))?;
    let validity = certificate.validity();
    let validity = Validity {
        not_before: system_time(validity.not_before.timestamp())?,
        not_after: system_time(validity.not_after.timestamp())?,
    };
    let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((validity, serial))
}

/// A moment of seconds since 1970; certificates from before it do not occur.
fn system_time(seconds: i64) -> Result<SystemTime, CertificateError> {
    u64::try_from(seconds)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| CertificateError::Encoding(format!("validity at {seconds} s after 1970 is out of range")))
}

/// Why the CA's answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Leaf or roots are missing.
    #[error("the CA answered {0} elements; leaf and roots are at least two")]
    TooShort(usize),
    /// Not PEM, or not a certificate.
    #[error("the CA's answer cannot be read: {0}")]
    Encoding(String),
    /// A certificate for somebody else.
    #[error("the CA issued {got}, asked for {asked}")]
    OtherIdentity {
        /// What was asked for.
        asked: SpiffeId,
        /// What came.
        got: SpiffeId,
    },
    /// A certificate for another key.
    #[error("the CA's certificate is for another key than the one in the request")]
    OtherKey,
    /// Our own key does not work.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// Already over, or not yet begun: compare the clocks of the node and the control plane.
    #[error("the certificate is valid from {:?} to {:?}, and it is {now:?} here", validity.not_before, validity.not_after)]
    NotNow {
        /// When it would be valid.
        validity: Validity,
        /// This machine's time.
        now: SystemTime,
    },
    /// The chain does not lead to the roots that came with it.
    #[error("the CA's chain does not hold: {0}")]
    Chain(#[source] VerifyError),
}

impl CertificateError {
    /// The code for log, metric and status: whatever is wrong with the answer, the workload has no certificate.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::NoCertificate
    }
}

#[cfg(test)]
mod tests;
