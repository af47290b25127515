//! Who the peer is: its chain must lead to one of our roots, and its leaf must carry exactly one URI, a SPIFFE identity.
//!
//! Server side: the peer's trust domain must be ours, policy does the rest. Client side: the identity must be one of the
//! expected, exactly. No DNS name takes part (as Istio's ztunnel; SPIFFE X.509-SVID sections 4 and 5).
//! Roots are a set, so that old and new overlap while a root is rotated.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use weft_model::{Reason, SpiffeId};
use x509_parser::extensions::GeneralName;

/// The certificates that every chain must lead to. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Roots of their DER; the same one twice counts once.
    ///
    /// # Errors
    /// When there is none, or one is not a certificate.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, VerifyError> {
        let mut roots = Self { certificates: Vec::new(), anchors: Vec::new() };
        for certificate in certificates {
            if roots.certificates.contains(&certificate) {
                continue;
            }
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| VerifyError::Root(error.to_string()))?
                .to_owned();
            roots.anchors.push(anchor);
            roots.certificates.push(certificate);
        }
        if roots.anchors.is_empty() { Err(VerifyError::NoRoots) } else { Ok(roots) }
    }

    /// Roots of one or more PEM blocks.
    ///
    /// # Errors
    /// When there is none, or one is broken.
    pub fn from_pem(pem: &[u8]) -> Result<Self, VerifyError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::new(certificates.map_err(|error| VerifyError::Root(error.to_string()))?)
    }

    /// The certificates themselves.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Whether both hold the same certificates, in whatever order.
    #[must_use]
    pub fn is_same_set(&self, other: &Self) -> bool {
        let holds = |certificate| other.certificates.contains(certificate);
        self.certificates.len() == other.certificates.len() && self.certificates.iter().all(holds)
    }

    /// As PEM, one block after the other.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificates.iter().map(|certificate| to_pem(certificate)).collect()
    }
}

/// One certificate as PEM (RFC 7468).
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), config)
}

/// For what a certificate is shown (extended key usage, RFC 5280 section 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// By the side that connected.
    Client,
    /// By the side that accepted.
    Server,
}

/// Checks a chain at one moment and tells whose it is.
///
/// # Errors
/// Why the chain is not to be trusted.
pub fn verify_chain(
    roots: &Roots,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    let certificate = EndEntityCert::try_from(leaf).map_err(VerifyError::Chain)?;
    let usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    certificate
        .verify_for_usage(algorithms().all, &roots.anchors, intermediates, now, usage, None, None)
        .map_err(VerifyError::Chain)?;
    identity_of(leaf)
}

/// The identity in a leaf, not verified: its only URI name.
///
/// # Errors
/// When it cannot be read, or has not exactly one URI (SPIFFE X.509-SVID section 2), or that is no identity of a mesh.
pub fn identity_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, VerifyError> {
    let unreadable = |error: &dyn std::fmt::Display| VerifyError::Unreadable(error.to_string());
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|error| unreadable(&error))?;
    let names = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [uri] => uri.parse().map_err(VerifyError::Identity),
        _ => Err(VerifyError::NotOneUri(uris.len())),
    }
}

/// Seconds since 1970, as the chain check wants it; before 1970 counts as 1970.
#[must_use]
pub fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// Accepts clients of one trust domain.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) roots: Arc<Roots>,
    pub(crate) trust_domain: String,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // a mesh client has one certificate, so a hint would only cost bytes
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let peer = verify_chain(&self.roots, leaf, intermediates, Usage::Client, now)?;
        if peer.trust_domain() != self.trust_domain {
            return Err(VerifyError::TrustDomain { peer, ours: self.trust_domain.clone() }.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Accepts servers with one of the expected identities.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) roots: Arc<Roots>,
    pub(crate) expected: Box<[SpiffeId]>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>, // a dummy: who the server is, its URI says
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = verify_chain(&self.roots, leaf, intermediates, Usage::Server, now)?;
        if !self.expected.contains(&peer) {
            return Err(VerifyError::Unexpected { peer, expected: self.expected.to_vec() }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Why a certificate is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No root to compare with.
    #[error("no root certificate is given")]
    NoRoots,
    /// A root that is no certificate.
    #[error("a root certificate cannot be read: {0}")]
    Root(String),
    /// Expired, unknown issuer, bad signature, wrong usage.
    #[error("the certificate chain is not valid: {0}")]
    Chain(webpki::Error),
    /// The leaf's names cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// No or several URIs.
    #[error("the certificate must have exactly one URI name, it has {0}")]
    NotOneUri(usize),
    /// The URI is no identity of a mesh.
    #[error("the certificate's URI is no identity: {0}")]
    Identity(#[source] weft_model::spiffe::SpiffeError),
    /// A client of another trust domain.
    #[error("the peer {peer} is not of our trust domain {ours}")]
    TrustDomain {
        /// Who came.
        peer: SpiffeId,
        /// Our trust domain.
        ours: String,
    },
    /// A server that is somebody else.
    #[error("the peer is {peer}, expected one of {expected:?}")]
    Unexpected {
        /// Who answered.
        peer: SpiffeId,
        /// Who should have.
        expected: Vec<SpiffeId>,
    },
}

impl VerifyError {
    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TrustDomain { .. } => Reason::TrustDomainMismatch,
            Self::Unexpected { .. } => Reason::PeerIdentityMismatch,
            Self::NoRoots
            | Self::Root(_)
            | Self::Chain(_)
            | Self::Unreadable(_)
            | Self::NotOneUri(_)
            | Self::Identity(_) => Reason::TlsFailed,
        }
    }
}

/// For rustls: the kinds that have an alert of their own (RFC 8446 section 6.2) keep it, the rest travels as it is.
impl From<VerifyError> for rustls::Error {
    fn from(error: VerifyError) -> Self {
        let kind = match error {
            VerifyError::Chain(webpki::Error::CertExpired { time, not_after }) => {
                CertificateError::ExpiredContext { time, not_after }
            }
            VerifyError::Chain(webpki::Error::CertNotValidYet { time, not_before }) => {
                CertificateError::NotValidYetContext { time, not_before }
            }
            VerifyError::Chain(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
            VerifyError::Chain(webpki::Error::InvalidSignatureForPublicKey) => CertificateError::BadSignature,
            VerifyError::Chain(webpki::Error::BadDer) | VerifyError::Unreadable(_) => CertificateError::BadEncoding,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self::InvalidCertificate(kind)
    }
}

#[cfg(test)]
mod tests;
