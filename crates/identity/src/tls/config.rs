//! The rustls configurations of the mesh; no other place builds any.
//!
//! TLS 1.3 only, said in every configuration, since cargo features of other crates may bring 1.2 into rustls.
//! ALPN is `h2`, no server name is sent, nothing is resumed: a resumed session would skip our
//! verifiers, and tunnels are pooled anyway.

use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
/// For who keeps the configurations that [`client_config`] and [`server_config`] make.
pub use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use weft_model::SpiffeId;

use crate::certificate::Credentials;
use crate::verify::{ClientVerifier, ServerVerifier};

/// The protocol inside of every connection of ours (`docs/hbone.md`, "TLS").
pub(super) const ALPN: &[u8] = b"h2";

/// One provider for all. AES-128-GCM first: 12 % faster than 256 here (measured) and as strong as the P-256
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
/// none (it authenticates by token).
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

/// A configuration that rustls does not accept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot build a TLS configuration: {0}")]
pub struct TlsError(rustls::Error);
