//! Who signs certificate requests: the seam between the certificate store and a CA, and the client for a CA that speaks
//! Istio's `IstioCertificateService` (`crates/wire/proto/istio/auth.proto`).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use weft_model::{Reason, SpiffeId};
use weft_wire::ca::{CaClient, CaError, CertificateRequest};

/// The answer to come: PEM texts, the leaf, intermediates one each, then the roots in one.
pub type Signed<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, AuthorityError>> + Send + 'a>>;

/// A certificate authority. Boxed, so that the store does not depend on which one it is; asked some times per hour.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Signs the request (PEM) of `identity` for `ttl`, or for less. The limit of time is the caller's.
    fn sign<'a>(&'a self, csr_pem: &'a str, identity: &'a SpiffeId, ttl: Duration) -> Signed<'a>;
}

/// A CA that speaks `IstioCertificateService`: our own control plane, or a stock istiod.
#[derive(Debug)]
pub struct RemoteAuthority {
    client: CaClient,
}

impl RemoteAuthority {
    /// Asks through this client.
    #[must_use]
    pub fn new(client: CaClient) -> Self {
        Self { client }
    }
}

impl CertificateAuthority for RemoteAuthority {
    fn sign<'a>(&'a self, csr_pem: &'a str, identity: &'a SpiffeId, ttl: Duration) -> Signed<'a> {
        let request = CertificateRequest { csr: csr_pem.to_owned(), identity: identity.clone(), validity: ttl };
        Box::pin(async move { self.client.issue(&request).await.map_err(AuthorityError::from) })
    }
}

impl From<CaError> for AuthorityError {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Refused { reason, message, .. } => {
                Self::Refused { reason: reason.unwrap_or(Reason::NoCertificate), message }
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Why the CA did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be reached, or is busy; the same request may succeed later.
    #[error("the certificate authority is not available: {0}")]
    Unavailable(String),
    /// It said no. The store asks again all the same, since what it allows changes with pods and policies.
    #[error("the certificate authority refused ({reason}): {message}")]
    Refused {
        /// Its reason, as far as it is one of ours.
        reason: Reason,
        /// Its words.
        message: String,
    },
    /// No answer in time.
    #[error("the certificate authority did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}
