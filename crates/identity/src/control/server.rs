//! The control plane's side: accepted connections as a stream for tonic's `serve_with_incoming`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use weft_runtime::places::{Place, Places};

use crate::control::serving::ServingSource;

/// A handshake that takes longer is no agent of ours: one round trip and a millisecond of arithmetic.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Handshakes at once; more wait in the kernel's queue. A node agent opens few connections, and strangers that say
/// nothing are gone after the deadline.
const HANDSHAKES: usize = 1024;

/// Connections at once: 5,000 nodes (Kubernetes' own limit) with three each.
const CONNECTIONS: usize = 16 * 1024;

/// Connections from one address, a quarter of [`HANDSHAKES`]: enough for the agents of 80 nodes behind one address, and nobody
/// without a token keeps the others out with silence.
const PER_ADDRESS: usize = 256;

/// How long to pause after the system refused to accept (out of descriptors): trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Handshake = Pin<Box<dyn Future<Output = Option<ServerConnection>> + Send>>;

/// Accepts, shakes hands with many at once, and yields the connections that are ready. Never ends, and never yields an error:
/// a failed handshake is that peer's matter and only logged.
pub struct Incoming {
    listener: TcpListener,
    security: Security,
    handshakes: FuturesUnordered<Handshake>,
    places: Places,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// What is spoken on the port.
enum Security {
    Tls(ServingSource),
    Plaintext,
}

impl Incoming {
    /// TLS with the certificate of `source`, which is asked for every connection, so that renewal needs no restart.
    #[must_use]
    pub fn tls(listener: TcpListener, source: ServingSource) -> Self {
        Self::new(listener, Security::Tls(source))
    }

    /// No protection: tokens pass in the clear. Only when the user says so.
    #[must_use]
    pub fn plaintext(listener: TcpListener) -> Self {
        Self::new(listener, Security::Plaintext)
    }

    fn new(listener: TcpListener, security: Security) -> Self {
        Self {
            listener,
            security,
            handshakes: FuturesUnordered::new(),
            places: Places::new(CONNECTIONS, PER_ADDRESS),
            pause: None,
        }
    }

    /// Takes new connections while there is room; the listener has the waker when it returns with room left.
    fn accept(&mut self, context: &mut Context<'_>) {
        while self.handshakes.len() < HANDSHAKES {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(context) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, peer))) => {
                    let Some(place) = self.places.take(peer.ip()) else {
                        tracing::debug!(%peer, "a connection too many is closed");
                        continue;
                    };
                    let config = match &mut self.security {
                        Security::Tls(source) => Some(source.config()),
                        Security::Plaintext => None,
                    };
                    self.handshakes.push(Box::pin(handshake(stream, peer, config, place)));
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    config: Option<Arc<ServerConfig>>,
    place: Place,
) -> Option<ServerConnection> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "connection is gone already");
        return None;
    }
    let Some(config) = config else { return Some(ServerConnection::Plain(stream, place)) };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(ServerConnection::Tls(Box::new(stream), place)),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, reason = weft_model::Reason::TlsFailed.code(), "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::info!(%peer, reason = weft_model::Reason::TlsFailed.code(), "TLS handshake took too long");
            None
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<ServerConnection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.accept(context);
            match this.handshakes.poll_next_unpin(context) {
                Poll::Ready(Some(Some(connection))) => return Poll::Ready(Some(Ok(connection))),
                Poll::Ready(Some(None)) => {} // a place is free again
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Incoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// A connection of an agent.
#[derive(Debug)]
pub enum ServerConnection {
    /// Unprotected, by the user's wish.
    Plain(TcpStream, Place),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>, Place),
}

impl Connected for ServerConnection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Plain(stream, _) => stream.connect_info(),
            Self::Tls(stream, _) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for ServerConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ServerConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_address_holds_only_its_share() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::plaintext(listener);
        let (mut clients, mut held) = (Vec::new(), Vec::new());
        for _ in 0..PER_ADDRESS {
            clients.push(TcpStream::connect(address).await.unwrap());
            held.push(incoming.next().await.unwrap().unwrap());
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        let closed = async { one_more.read(&mut [0]).await.unwrap_or_default() };
        tokio::select! {
            _ = incoming.next() => panic!("let in"),
            read = closed => assert_eq!(read, 0),
        }
        held.clear();
        let _next = TcpStream::connect(address).await.unwrap();
        assert!(incoming.next().await.unwrap().is_ok());
        assert!(incoming.next().now_or_never().is_none());
    }
}
