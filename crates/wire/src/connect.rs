//! How a client of the control plane gets its connection, and what it says about itself.
//!
//! TLS belongs to `weft-identity`: a [`Connector`] is given a function that produces ready byte streams (TLS, plain TCP or
//! an in-memory pipe) and makes HTTP/2 channels of them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};

/// Largest message that is accepted, 200 MiB: a whole mesh in one response (as ztunnel).
pub const MESSAGE_LIMIT: usize = 200 * 1024 * 1024;
/// A connection attempt, name resolution and TLS included, may take 5 s (as ztunnel).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An HTTP/2 PING every 30 s, also when nothing is open (as ztunnel).
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// The server is gone if a PING has no answer for 10 s (as ztunnel).
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 windows, 4 MiB: the first answer of a large mesh is some MiB, and the default of 64 KiB would cost a round
/// trip for each piece of it (measured).
const WINDOW: u32 = 4 * 1024 * 1024;

/// A byte stream that HTTP/2 can run on.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// A byte stream of any kind.
pub type BoxConnection = Box<dyn Connection>;

type Dial = dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<BoxConnection>> + Send>> + Send + Sync;

/// Makes connections to one server. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    origin: Uri,
    dial: Arc<Dial>,
}

impl Connector {
    /// `origin` is what the server is called in requests (`https://HOST:PORT`); `dial` makes one connection to it, called
    /// anew for each.
    pub fn new<F, T, C>(origin: Uri, dial: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = io::Result<C>> + Send + 'static,
        C: Connection,
    {
        let boxed = move || {
            let connection = dial();
            let future: Pin<Box<dyn Future<Output = io::Result<BoxConnection>> + Send>> =
                Box::pin(async move { connection.await.map(|connection| Box::new(connection) as BoxConnection) });
            future
        };
        Self { origin, dial: Arc::new(boxed) }
    }

    /// Plain TCP, for tests and for a server behind something that encrypts.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        let origin = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/").build();
        let origin = origin.expect("a socket address is an authority");
        Self::new(origin, move || tokio::net::TcpStream::connect(address))
    }

    /// What the server is called.
    #[must_use]
    pub fn origin(&self) -> &Uri {
        &self.origin
    }

    /// One connected channel.
    ///
    /// # Errors
    /// The connection cannot be made within [`CONNECT_TIMEOUT`].
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let endpoint = self.endpoint();
        let attempt = endpoint.connect_with_connector(self.service());
        attempt.await.map_err(|error| ConnectError { origin: self.origin.clone(), cause: causes(&error) })
    }

    /// A channel that connects at its first use and again whenever it must. Needs a tokio runtime around it.
    #[must_use]
    pub fn lazy_channel(&self) -> Channel {
        self.endpoint().connect_with_connector_lazy(self.service())
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.origin.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
    }

    fn service(
        &self,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<BoxConnection>,
        Error = io::Error,
        Future = impl Future<Output = io::Result<TokioIo<BoxConnection>>> + Send + use<>,
    > + Send
    + use<> {
        let dial = self.dial.clone();
        tower::service_fn(move |_origin: Uri| {
            let connection = dial();
            async move { connection.await.map(TokioIo::new) }
        })
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// No connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no connection to {origin}: {cause}")]
pub struct ConnectError {
    /// To whom.
    pub origin: Uri,
    /// Why.
    pub cause: String,
}

/// What a client says about itself with each request.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A file with a bearer token, read again for each use: tokens are rotated in place.
    pub token_file: Option<PathBuf>,
    /// Header `clusterid`; not sent when empty.
    pub cluster: String,
    /// More headers (`XDS_HEADER_*`, `CA_HEADER_*`).
    pub headers: Vec<(String, String)>,
}

/// The credentials cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The token file cannot be read.
    #[error("cannot read the token file {}: {cause}", path.display())]
    TokenFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The token file has nothing in it.
    #[error("the token file {} is empty", path.display())]
    NoToken {
        /// Which file.
        path: PathBuf,
    },
    /// A name or value that no header can have.
    #[error("'{name}' is not a valid header, or its value is not")]
    Header {
        /// The name.
        name: String,
    },
}

impl Credentials {
    /// As gRPC metadata.
    ///
    /// # Errors
    /// The token file cannot be read, or something is no header.
    pub fn metadata(&self) -> Result<MetadataMap, CredentialsError> {
        let mut metadata = MetadataMap::new();
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|cause| CredentialsError::TokenFile { path: path.clone(), cause })?;
            let token = text.trim();
            if token.is_empty() {
                return Err(CredentialsError::NoToken { path: path.clone() });
            }
            put(&mut metadata, "authorization", &format!("Bearer {token}"))?;
        }
        if !self.cluster.is_empty() {
            put(&mut metadata, "clusterid", &self.cluster)?;
        }
        for (name, value) in &self.headers {
            put(&mut metadata, name, value)?;
        }
        Ok(metadata)
    }
}

fn put(metadata: &mut MetadataMap, name: &str, value: &str) -> Result<(), CredentialsError> {
    let wrong = || CredentialsError::Header { name: name.to_owned() };
    let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|_| wrong())?;
    let mut value: AsciiMetadataValue = value.parse().map_err(|_| wrong())?;
    value.set_sensitive(name == "authorization");
    metadata.insert(key, value);
    Ok(())
}

/// An error and what is behind it, in one line: tonic's own text is only "transport error".
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Credentials, CredentialsError};

    #[test]
    fn the_token_is_read_again_each_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let headers = vec![("X-Tenant".to_owned(), "blue".to_owned())];
        let credentials = Credentials { token_file: Some(path), cluster: "east".to_owned(), headers };
        assert!(matches!(credentials.metadata(), Err(CredentialsError::NoToken { .. })));
        file.write_all(b"first\n").unwrap();
        let metadata = credentials.metadata().unwrap();
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer first");
        assert_eq!(metadata.get("clusterid").unwrap(), "east");
        assert_eq!(metadata.get("x-tenant").unwrap(), "blue");
        file.as_file().set_len(0).unwrap();
        std::fs::write(file.path(), "second").unwrap();
        assert_eq!(credentials.metadata().unwrap().get("authorization").unwrap(), "Bearer second");
    }

    #[test]
    fn what_cannot_be_sent_is_an_error() {
        let missing = Credentials { token_file: Some("/nonexistent/token".into()), ..Credentials::default() };
        assert!(matches!(missing.metadata(), Err(CredentialsError::TokenFile { .. })));
        let headers = vec![("a b".to_owned(), String::new())];
        let wrong = Credentials { headers, ..Credentials::default() };
        assert!(matches!(wrong.metadata(), Err(CredentialsError::Header { .. })));
    }
}
