//! The only place that builds rustls configurations, and the two handshakes of the mesh on any byte stream.
//!
//! TLS 1.3 only, said in every configuration, since cargo features of other crates may bring 1.2 into rustls
//! (`crates.md` trap 6). ALPN is `h2`, no server name is sent, nothing is resumed: a resumed session would skip our
//! verifiers (trap 7), and tunnels are pooled anyway.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, CommonState, RootCertStore};
/// For who keeps the configurations that [`client_config`] and [`server_config`] make.
pub use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
/// The encrypted streams that [`connect`] and [`accept`] give.
pub use tokio_rustls::{client::TlsStream as ClientStream, server::TlsStream as ServerStream};
use weft_model::{Reason, SpiffeId};

use crate::certificate::Credentials;
use crate::verify::{ClientVerifier, ServerVerifier, VerifyError, identity_of};

/// The protocol inside of every connection of ours (`ambient-wire.md` section 6).
const ALPN: &[u8] = b"h2";

/// One provider for all. AES-128-GCM first: 12 % faster than 256 here (`crates.md` section 4) and as strong as the P-256
/// certificates. X25519MLKEM768 first: what is recorded today stays secret when quantum computers come; costs 9 % of a
/// handshake (same section). Both orders must be said: without rustls' default features post-quantum is not preferred.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
});

/// Makes aws-lc-rs the process default, for code that asks rustls for one. Call it first in `main`; more calls do nothing.
pub fn install_default_provider() {
    // An error says that a default is installed already, by an earlier call of ours.
    let _already = aws_lc_rs::default_provider().install_default();
}

/// What a workload's HBONE listener accepts with: clients of its own trust domain, whose certificate its roots confirm.
///
/// Cache it per credentials: making one costs microseconds, a handshake should not pay them.
///
/// # Errors
/// Not with credentials as they are made; stated as an error so that nothing panics.
pub fn server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = ClientVerifier {
        roots: credentials.roots().clone(),
        trust_domain: credentials.identity().trust_domain().to_owned(),
    };
    let config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified().clone())));
    Ok(Arc::new(hardened_server(config)))
}

/// What a tunnel to a peer with one of the `expected` identities is opened with. None expected means that nobody passes.
///
/// Cache it per credentials and expected set.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(credentials: &Credentials, expected: &[SpiffeId]) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = ServerVerifier { roots: credentials.roots().clone(), expected: expected.into() };
    let config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .dangerous() // rustls' word for a verifier of one's own; verify.rs is ours
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified().clone())));
    let mut config = hardened_client(config);
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The agent's side of TLS to the control plane: the server shows a certificate for the server name asked for, the client
/// none (`ambient-wire.md` section 7: it authenticates by token).
pub(crate) fn control_client_config(roots: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    // A system bundle holds roots that rustls does not read; those confirm nothing, the others do.
    store.add_parsable_certificates(roots);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), PROVIDER.clone())
        .build()
        .map_err(|error| TlsError(rustls::Error::General(error.to_string())))?;
    let config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(hardened_client(config)))
}

/// The control plane's side: shows its certificate, asks for none.
pub(crate) fn control_server_config(certified: Arc<CertifiedKey>) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(Arc::new(hardened_server(config)))
}

fn hardened_server(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true; // our order is by measurement
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

fn hardened_client(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// The verified identity at the other end of a mesh connection, none before the handshake is done.
#[must_use]
pub fn peer_identity(connection: &CommonState) -> Option<SpiffeId> {
    identity_of(connection.peer_certificates()?.first()?).ok()
}

/// The accepting half of a handshake. The time limit is the caller's.
///
/// # Errors
/// [`HandshakeError`] with its reason; the peer was sent the alert.
pub async fn accept<S>(stream: S, config: Arc<ServerConfig>) -> Result<(server::TlsStream<S>, SpiffeId), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsAcceptor::from(config).accept(stream).await.map_err(HandshakeError::new)?;
    let connection = stream.get_ref().1;
    check_protocol(connection)?;
    let peer = peer_identity(connection).ok_or_else(|| HandshakeError::own("the client showed no certificate"))?;
    Ok((stream, peer))
}

/// The connecting half of a handshake. The time limit is the caller's.
///
/// In TLS 1.3 the client is done before the server has looked at its certificate: a server that refuses it shows as an error
/// of the first read ([`reason_of`] names it).
///
/// # Errors
/// [`HandshakeError`] with its reason.
pub async fn connect<S>(stream: S, config: Arc<ClientConfig>) -> Result<client::TlsStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // rustls wants a name; an address is never sent, and our verifier does not look at it.
    let nobody = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let stream = TlsConnector::from(config).connect(nobody, stream).await.map_err(HandshakeError::new)?;
    check_protocol(stream.get_ref().1)?;
    Ok(stream)
}

/// rustls refuses a peer that offers other protocols only; one that offers none comes through to here.
fn check_protocol(connection: &CommonState) -> Result<(), HandshakeError> {
    match connection.alpn_protocol() {
        Some(ALPN) => Ok(()),
        _ => Err(HandshakeError::own("the peer did not agree on the protocol h2")),
    }
}

/// The reason in an error of a TLS stream, none when the error is of the transport below.
#[must_use]
pub fn reason_of(error: &std::io::Error) -> Option<Reason> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(verify_error(error).map_or(Reason::TlsFailed, VerifyError::reason))
}

fn verify_error(error: &rustls::Error) -> Option<&VerifyError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// A handshake that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("TLS handshake: {error}")]
pub struct HandshakeError {
    reason: Reason,
    #[source]
    error: std::io::Error,
}

impl HandshakeError {
    fn new(error: std::io::Error) -> Self {
        Self { reason: reason_of(&error).unwrap_or(Reason::TlsFailed), error }
    }

    fn own(text: &'static str) -> Self {
        Self { reason: Reason::TlsFailed, error: std::io::Error::other(text) }
    }

    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The kind of the transport's error, for who tells a reset from a refusal; `InvalidData` when TLS itself said no.
    #[must_use]
    pub fn kind(&self) -> std::io::ErrorKind {
        self.error.kind()
    }
}

/// A configuration that rustls does not accept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot build a TLS configuration: {0}")]
pub struct TlsError(rustls::Error);
