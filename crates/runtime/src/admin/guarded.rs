//! The listener of the admin pages as strangers meet it: metrics and health are open to every pod of the node, and share
//! the program's descriptors with what the program is for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

use crate::places::{Place, Places};

/// Connections of one listener; a Prometheus, a kubelet and some people need ten.
const TOTAL: usize = 512;
/// Connections from one address.
const PER_ADDRESS: usize = 32;
/// A connection that was written nothing for this long ends: one that asks nothing, one that sends its request byte by byte,
/// and one that does not read. Twice the usual 15 s between two scrapes, so that scrapes share a connection; no page takes
/// longer than 5 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts while there are places.
pub(super) struct Guarded {
    listener: TcpListener,
    places: Places,
}

impl Guarded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Places::new(TOTAL, PER_ADDRESS) }
    }
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // Axum's own way to wait out a lack of descriptors.
            let (stream, from) = Listener::accept(&mut self.listener).await;
            match self.places.take(from.ip()) {
                Some(place) => {
                    return (Connection { stream, deadline: Box::pin(sleep(PATIENCE)), _place: place }, from);
                }
                None => tracing::debug!(%from, "an admin connection too many is closed"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection with its place and its patience.
pub(super) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    fn expired(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        self.deadline.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }

    fn wrote(&mut self) {
        self.deadline.as_mut().reset(Instant::now() + PATIENCE);
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = this.expired(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(context, bytes) {
            this.wrote();
            return Poll::Ready(written);
        }
        this.expired(context).map(Err)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn one_stranger_holds_only_its_share() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut guarded = Guarded::new(listener);
        let mut clients = Vec::new();
        let mut held = Vec::new();
        for _ in 0..PER_ADDRESS {
            clients.push(TcpStream::connect(address).await.unwrap());
            held.push(Listener::accept(&mut guarded).await);
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        let patience = tokio::time::timeout(Duration::from_millis(200), Listener::accept(&mut guarded)).await;
        assert!(patience.is_err(), "not let in");
        assert_eq!(one_more.read(&mut [0]).await.unwrap_or_default(), 0, "and told so");
        held.clear();
        let _next = TcpStream::connect(address).await.unwrap();
        Listener::accept(&mut guarded).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_drips_its_request_is_not_waited_for() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut connection, _) = Listener::accept(&mut Guarded::new(listener)).await;
        let mut error = None;
        let begun = Instant::now();
        while error.is_none() && begun.elapsed() < 3 * PATIENCE {
            client.write_all(b"x").await.unwrap();
            error = connection.read(&mut [0]).await.err();
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(error.map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
        // What is answered starts anew.
        connection.write_all(b"page").await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 1);
    }
}
