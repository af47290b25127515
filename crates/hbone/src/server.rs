//! The accepting end of one connection.
//!
//! [`ServerConnection::accept`] is also what moves the connection's bytes: call it in a loop until it returns `None`, and
//! serve each [`Incoming`] elsewhere (in a task that the same owner holds). It is safe to drop its future, so the loop can
//! `select!` between it and a drain signal:
//!
//! ```no_run
//! # async fn serve<Io: tokio::io::AsyncBufRead + tokio::io::AsyncWrite + Unpin>(
//! #     mut connection: weft_hbone::ServerConnection<Io>, drain: tokio_util::sync::CancellationToken) {
//! let mut draining = false;
//! loop {
//!     tokio::select! {
//!         incoming = connection.accept() => match incoming {
//!             None => break,
//!             Some(Ok(incoming)) => { /* start a task that decides, then accepts and relays, or refuses */ }
//!             Some(Err(malformed)) => { /* already answered with 400: count it */ }
//!         },
//!         () = drain.cancelled(), if !draining => { connection.drain(); draining = true; }
//!     }
//! }
//! # }
//! ```

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::connect::{BAGGAGE, ConnectHead, DecodeError, REASON_HEADER, Refusal, is_header_value};
use crate::driver::{Driver, Shared};
use crate::error::{ConnectionEnd, StreamError};
use crate::handle::Handle;
use crate::http2::hpack::{Field, HeaderList};
use crate::http2::{Key, Role};
use crate::settings::ConnectionSettings;
use crate::tunnel::Tunnel;

/// Reason code of a request that is not CONNECT.
pub const REASON_NOT_CONNECT: &str = "not-connect";
/// Reason code of an authority that does not parse.
pub const REASON_BAD_AUTHORITY: &str = "bad-authority";

/// One connection from a client.
pub struct ServerConnection<Io> {
    driver: Driver<Io>,
    end: Option<ConnectionEnd>,
}

/// A request for a tunnel that waits for its answer. Dropping it unanswered resets the stream.
pub struct Incoming {
    /// What the client asks for.
    pub head: ConnectHead,
    stream: Handle,
}

/// A request that could open no tunnel; it has been answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed request: {0}")]
pub struct Malformed(pub DecodeError);

/// Starts HTTP/2 on a ready encrypted stream and waits for the client's preface. Give it a deadline: a silent client never ends it.
///
/// # Errors
/// How the stream failed, or [`ConnectionEnd::Protocol`] when this is no HTTP/2.
pub async fn handshake<Io>(io: Io, settings: &ConnectionSettings) -> Result<ServerConnection<Io>, ConnectionEnd>
where
    Io: AsyncBufRead + AsyncWrite + Unpin,
{
    let mut driver = Driver::new(io, Role::Server, settings);
    poll_fn(|cx| match driver.poll(cx) {
        Poll::Ready(end) => Poll::Ready(Err(end)),
        Poll::Pending if driver.shared().borrow().awaits_preface() => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    Ok(ServerConnection { driver, end: None })
}

impl<Io> ServerConnection<Io>
where
    Io: AsyncBufRead + AsyncWrite + Unpin,
{
    /// Moves the connection until the next request; `None` when the connection has ended. Cancel safe.
    pub async fn accept(&mut self) -> Option<Result<Incoming, Malformed>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Self::accept`].
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, Malformed>>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        let shared = self.driver.shared();
        // What one read brought is taken before the next.
        let request = shared.borrow_mut().next_request();
        if let Some((key, list)) = request {
            return Poll::Ready(Some(receive(shared, key, &list)));
        }
        if let Poll::Ready(end) = self.driver.poll(cx) {
            self.end = Some(end);
            return Poll::Ready(None);
        }
        let shared = self.driver.shared();
        let request = shared.borrow_mut().next_request();
        request.map_or(Poll::Pending, |(key, list)| Poll::Ready(Some(receive(shared, key, &list))))
    }

    /// Graceful end: GOAWAY, requests already on their way are still served, open tunnels go on. [`Self::accept`] returns `None` when the
    /// last one is done; whoever has a deadline calls [`Self::abort`] at it.
    pub fn drain(&mut self) {
        self.driver.shared().borrow_mut().drain();
    }

    /// Abrupt end: GOAWAY NO_ERROR, then the connection closes and open tunnels fail at both ends. Go on calling
    /// [`Self::accept`] until it returns `None` so that the GOAWAY gets out.
    pub fn abort(&mut self) {
        self.driver.shared().borrow_mut().abort();
        self.driver.decide_end(ConnectionEnd::Aborted);
    }

    /// How the connection ended, once [`Self::accept`] has returned `None`.
    #[must_use]
    pub fn end(&self) -> Option<&ConnectionEnd> {
        self.end.as_ref()
    }
}

fn receive(shared: &Shared, key: Key, list: &HeaderList) -> Result<Incoming, Malformed> {
    let stream = Handle::new(shared, key);
    match ConnectHead::decode(list) {
        Ok(head) => Ok(Incoming { head, stream }),
        Err(error) => {
            let reason = match error {
                DecodeError::NotConnect => REASON_NOT_CONNECT,
                DecodeError::Authority(_) => REASON_BAD_AUTHORITY,
            };
            refuse(&stream, Refusal::Malformed, reason);
            Err(Malformed(error))
        }
    }
}

fn refuse(stream: &Handle, why: Refusal, reason: &str) {
    let status = Field::new(":status", why.status().to_string());
    let reason = Field::new(REASON_HEADER, Bytes::copy_from_slice(reason.as_bytes()));
    // A client that is gone already needs no answer.
    let _ = stream.with(|connection, key| connection.respond(key, &[status, reason], true));
}

impl Incoming {
    /// Answers 200, with the baggage of the destination workload when given. Only after the application accepted its connection.
    ///
    /// # Errors
    /// The client is gone.
    pub fn accept(self, baggage: Option<&str>) -> Result<Tunnel, StreamError> {
        let mut fields = vec![Field::from_static(":status", "200")];
        if let Some(value) = baggage.filter(|text| !text.is_empty() && is_header_value(text)) {
            fields.push(Field::new(BAGGAGE, Bytes::copy_from_slice(value.as_bytes())));
        }
        self.stream.with(|connection, key| connection.respond(key, &fields, false))?;
        Ok(Tunnel::new(self.stream, None))
    }

    /// Answers with a refusal and its reason code (`x-weft-reason`).
    pub fn refuse(self, why: Refusal, reason: &str) {
        refuse(&self.stream, why, reason);
    }

    /// Ready when the client has withdrawn the request: whoever is still connecting to the application can stop.
    pub fn poll_withdrawn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.with(|connection, key| connection.poll_failed(key, cx.waker())).map(|_| ())
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("head", &self.head).finish_non_exhaustive()
    }
}
