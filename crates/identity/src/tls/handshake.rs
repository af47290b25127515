//! The two handshakes of the mesh on any byte stream, and how they fail.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{CertificateError, CommonState};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use weft_model::{Reason, SpiffeId};

use super::config::{ALPN, ClientConfig, ServerConfig};
use super::stream::TlsStream;
use crate::verify::{VerifyError, identity_of};

/// What [`connect`] gives.
pub type ClientStream<S> = TlsStream<S, UnbufferedClientConnection>;
/// What [`accept`] gives.
pub type ServerStream<S> = TlsStream<S, UnbufferedServerConnection>;

/// The verified identity at the other end of a mesh connection, none before the handshake is done.
#[must_use]
pub fn peer_identity(connection: &CommonState) -> Option<SpiffeId> {
    identity_of(connection.peer_certificates()?.first()?).ok()
}

/// The accepting half of a handshake. The time limit is the caller's.
///
/// # Errors
/// [`HandshakeError`] with its reason; the peer was sent the alert.
pub async fn accept<S>(stream: S, config: Arc<ServerConfig>) -> Result<(ServerStream<S>, SpiffeId), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let session = UnbufferedServerConnection::new(config).map_err(HandshakeError::of_rustls)?;
    let stream = TlsStream::handshake(stream, session).await.map_err(HandshakeError::new)?;
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
pub async fn connect<S>(stream: S, config: Arc<ClientConfig>) -> Result<ClientStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // rustls wants a name; an address is never sent, and our verifier does not look at it.
    let nobody = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let session = UnbufferedClientConnection::new(config, nobody).map_err(HandshakeError::of_rustls)?;
    let stream = TlsStream::handshake(stream, session).await.map_err(HandshakeError::new)?;
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

    fn of_rustls(error: rustls::Error) -> Self {
        Self::new(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
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
