//! The agent's side: a connector for tonic's `Endpoint::connect_with_connector`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trust::LearntRoots;
use crate::tls;

/// One address gets this long for TCP and TLS, then the next one is tried: two that do not answer fit into the 5 s that
/// `weft_wire::connect` allows for all (as ztunnel).
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Where distributions keep the roots of public CAs: Debian, Fedora, Alpine and SUSE, in this order.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Turns a name and a port into addresses.
///
/// A parameter, since the C library's look-up is fragile in a static binary: programs pass hickory, tests
/// and dynamic binaries [`system_resolver`].
pub type Resolve = Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>;

/// The addresses to come.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks up by the C library.
#[must_use]
pub fn system_resolver() -> Resolve {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// Whom to believe that it is the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRoots {
    /// The roots in this PEM file, read again for every connection, so that a rotated root needs no restart.
    File(PathBuf),
    /// The machine's public CAs.
    System,
}

/// How the control plane is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlSecurity {
    /// TLS 1.3; the server's certificate must be for `server_name`, a DNS name or an address.
    Tls {
        /// Whom to believe.
        roots: ControlRoots,
        /// The name in the certificate; the host of the address when none is given.
        server_name: Option<String>,
    },
    /// No protection. Tokens and certificates pass in the clear: only where the path itself is protected, and only when the
    /// user says so.
    Plaintext,
}

/// Connects to the control plane, for tonic. The scheme of the endpoint's URI does not matter: what is spoken is said here.
#[derive(Clone)]
pub struct ControlConnector {
    security: ControlSecurity,
    resolve: Resolve,
    learnt: LearntRoots,
}

impl ControlConnector {
    /// A connector that connects when tonic asks.
    #[must_use]
    pub fn new(security: ControlSecurity, resolve: Resolve) -> Self {
        Self { security, resolve, learnt: LearntRoots::default() }
    }

    /// Believes the CA's roots, too, if they are of the family of those in the file.
    #[must_use]
    pub fn with_learnt(mut self, learnt: LearntRoots) -> Self {
        self.learnt = learnt;
        self
    }

    /// As the connector that clients of `weft-wire` take, for the server at `origin` (`http://HOST:PORT`).
    #[must_use]
    pub fn into_wire(self, origin: Uri) -> weft_wire::connect::Connector {
        let target = origin.clone();
        weft_wire::connect::Connector::new(origin, move || {
            let (connector, target) = (self.clone(), target.clone());
            async move { connector.connect(target).await.map_err(io::Error::other) }
        })
    }

    /// Connects to the authority of `uri`, one address after the other.
    ///
    /// # Errors
    /// That of the last address, or what is wrong with the settings.
    pub async fn connect(&self, uri: Uri) -> Result<ControlStream, ControlError> {
        let host = uri.host().ok_or_else(|| ControlError::Address(uri.to_string()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().ok_or_else(|| ControlError::Address(uri.to_string()))?;
        let tls = match &self.security {
            ControlSecurity::Plaintext => None,
            ControlSecurity::Tls { roots, server_name } => {
                let name = server_name.as_deref().unwrap_or(host);
                let name = ServerName::try_from(name.to_owned()).map_err(|_| ControlError::Name(name.to_owned()))?;
                let config = tls::control_client_config(self.learnt.join(read_roots(roots)?))?;
                Some((TlsConnector::from(config), name))
            }
        };
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => (self.resolve)(host.to_owned(), port)
                .await
                .map_err(|error| ControlError::Resolve { host: host.to_owned(), error })?,
        };
        let mut last = ControlError::Resolve {
            host: host.to_owned(),
            error: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        };
        for address in addresses {
            let attempt = connect_one(address, tls.clone());
            match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = ControlError::Connect { address, error },
                Err(_) => last = ControlError::Connect { address, error: io::ErrorKind::TimedOut.into() },
            }
        }
        Err(last)
    }
}

async fn connect_one(
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> io::Result<ControlStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(ControlStream::Plain(stream)),
        Some((connector, name)) => Ok(ControlStream::Tls(Box::new(connector.connect(name, stream).await?))),
    }
}

/// Reads some tens of KiB on the control thread, once per connection.
fn read_roots(roots: &ControlRoots) -> Result<Vec<CertificateDer<'static>>, ControlError> {
    let path = match roots {
        ControlRoots::File(path) => path.clone(),
        ControlRoots::System => {
            SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(ControlError::NoSystemRoots)?
        }
    };
    let unusable = |detail: String| ControlError::Roots { path: path.clone(), detail };
    let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

impl tower::Service<Uri> for ControlConnector {
    type Response = TokioIo<ControlStream>;
    type Error = ControlError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

impl fmt::Debug for ControlConnector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ControlConnector").field("security", &self.security).finish_non_exhaustive()
    }
}

/// A connection to the control plane.
#[derive(Debug)]
pub enum ControlStream {
    /// Unprotected, by the user's wish.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for ControlStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Why the control plane cannot be connected to. Each says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The URI lacks host or port.
    #[error("the control plane's address '{0}' must be of the form http://HOST:PORT")]
    Address(String),
    /// The server name is neither a DNS name nor an address.
    #[error("'{0}' is no name that a certificate can be for")]
    Name(String),
    /// The roots file cannot be used.
    #[error("the control plane's roots in {}: {detail}", path.display())]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// No bundle where distributions keep it.
    #[error("this machine has no bundle of public CA certificates (looked for {})", SYSTEM_BUNDLES.join(", "))]
    NoSystemRoots,
    /// The configuration is refused.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The name has no address.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// Which name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// TCP or TLS failed.
    #[error("cannot connect to the control plane at {address}: {error}")]
    Connect {
        /// Which address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}
