//! Asks the certificate authority for one certificate (`proto/istio/auth.proto`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::OnceCell;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weft_model::{Reason, SpiffeId};

use crate::connect::{Connector, Credentials, CredentialsError, causes};
use crate::proto::istio::v1::auth::IstioCertificateRequest;
use crate::proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::refusal::reason_of;

/// The metadata key that names the identity asked for (`proto/istio/auth.proto`).
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
/// How long one request may take, connecting included: signing takes a millisecond, and the caller backs off anyway.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The certificate signing request, PEM.
    pub csr: String,
    /// The identity that it asks for.
    pub identity: SpiffeId,
    /// How long the certificate should be valid; sent in whole seconds.
    pub validity: Duration,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Our own credentials cannot be sent.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The authority cannot be reached or has a problem of its own.
    #[error("the certificate authority is not available ({code:?}): {message}")]
    Unavailable {
        /// The gRPC status.
        code: Code,
        /// What it says.
        message: String,
    },
    /// The authority does not want to.
    #[error("the certificate authority refuses ({code:?}): {message}")]
    Refused {
        /// The gRPC status.
        code: Code,
        /// The reason, if it is one of ours.
        reason: Option<Reason>,
        /// What it says.
        message: String,
    },
    /// The answer has fewer than two certificates.
    #[error("the certificate authority answered with {0} certificates; at least a leaf and a root are needed")]
    ShortChain(usize),
}

impl CaError {
    /// Whether the same request may succeed soon. A refusal may be lifted, too, but by somebody's action.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Credentials(_))
    }

    /// The stable code of what happened.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused { reason: Some(reason), .. } => *reason,
            _ => Reason::NoCertificate,
        }
    }
}

impl From<Status> for CaError {
    fn from(status: Status) -> Self {
        let code = status.code();
        let message = status.message().to_owned();
        match code {
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
                Self::Refused { code, reason: reason_of(&status), message }
            }
            _ => Self::Unavailable { code, message: causes(&status) },
        }
    }
}

/// A client of the certificate authority. One connection, made when it is first needed.
#[derive(Debug)]
pub struct CaClient {
    connector: Connector,
    credentials: Credentials,
    channel: OnceCell<Channel>,
}

impl CaClient {
    /// Connects at the first request.
    #[must_use]
    pub fn new(connector: Connector, credentials: Credentials) -> Self {
        Self { connector, credentials, channel: OnceCell::new() }
    }

    /// Asks for one certificate. The answer is PEM: the leaf, intermediates one each, and last the root or roots.
    ///
    /// # Errors
    /// See [`CaError`].
    pub async fn issue(&self, request: &CertificateRequest) -> Result<Vec<String>, CaError> {
        let channel = self.channel.get_or_init(async || self.connector.lazy_channel()).await.clone();
        let mut message = Request::new(to_wire(request));
        *message.metadata_mut() = self.credentials.metadata()?;
        message.set_timeout(DEADLINE);
        let mut client = IstioCertificateServiceClient::new(channel);
        let answer = tokio::time::timeout(DEADLINE, client.create_certificate(message)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?;
        let chain = answer.into_inner().cert_chain;
        if chain.len() < 2 { Err(CaError::ShortChain(chain.len())) } else { Ok(chain) }
    }
}

fn to_wire(request: &CertificateRequest) -> IstioCertificateRequest {
    let identity = prost_types::value::Kind::StringValue(request.identity.to_string());
    let fields = BTreeMap::from([(IMPERSONATED_IDENTITY.to_owned(), prost_types::Value { kind: Some(identity) })]);
    IstioCertificateRequest {
        csr: request.csr.clone(),
        validity_duration: i64::try_from(request.validity.as_secs()).unwrap_or(i64::MAX),
        metadata: Some(prost_types::Struct { fields }),
    }
}

/// The identity that a request's metadata names, for the side that serves.
#[must_use]
pub fn impersonated_identity(request: &IstioCertificateRequest) -> Option<&str> {
    match request.metadata.as_ref()?.fields.get(IMPERSONATED_IDENTITY)?.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}
