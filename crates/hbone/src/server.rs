//! The accepting end of one connection.
//!
//! [`ServerConnection::accept`] is also what moves the connection's bytes: call it in a loop until it returns `None`, and
//! serve each [`Incoming`] elsewhere (in a task that the same owner holds). It is safe to drop its future, so the loop can
//! `select!` between it and a drain signal:
//!
//! ```no_run
//! # async fn serve<Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
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
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HeaderValue;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect::{BAGGAGE, ConnectHead, DecodeError, REASON_HEADER, Refusal};
use crate::error::{ConnectionEnd, StreamError};
use crate::keepalive::Keepalive;
use crate::payload::Payload;
use crate::settings::{ConnectionSettings, LATE_FRAMES_FORGIVEN, RESET_STREAMS_REMEMBERED};
use crate::status::{ConnectionStatus, connection_end};
use crate::tunnel::Tunnel;

/// Reason code of a request that is not CONNECT.
pub const REASON_NOT_CONNECT: &str = "not-connect";
/// Reason code of an authority that does not parse.
pub const REASON_BAD_AUTHORITY: &str = "bad-authority";

/// One connection from a client.
pub struct ServerConnection<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    /// `None` once it has ended.
    connection: Option<h2::server::Connection<Io, Payload>>,
    keepalive: Option<Keepalive>,
    status: Arc<ConnectionStatus>,
    end: Option<ConnectionEnd>,
    aborting: bool,
}

/// A request for a tunnel that waits for its answer. Dropping it unanswered resets the stream.
pub struct Incoming {
    /// What the client asks for.
    pub head: ConnectHead,
    receiving: h2::RecvStream,
    respond: h2::server::SendResponse<Payload>,
    status: Arc<ConnectionStatus>,
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
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame_size)
        .max_send_buffer_size(settings.max_send_buffer_size)
        .data_frame_budget(settings.data_frame_budget)
        .max_header_list_size(settings.max_header_list_size)
        .max_concurrent_reset_streams(RESET_STREAMS_REMEMBERED)
        .max_local_error_reset_streams(Some(LATE_FRAMES_FORGIVEN))
        .max_pending_accept_reset_streams(settings.max_concurrent_streams as usize)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .handshake::<Io, Payload>(io)
        .await
        .map_err(|error| connection_end(Err(error)))?;
    let keepalive = connection.ping_pong().map(|pings| Keepalive::new(pings, settings.keepalive));
    Ok(ServerConnection { connection: Some(connection), keepalive, status: Arc::default(), end: None, aborting: false })
}

impl<Io> ServerConnection<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    /// Moves the connection until the next request; `None` when the connection has ended. Cancel safe.
    pub async fn accept(&mut self) -> Option<Result<Incoming, Malformed>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Self::accept`].
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, Malformed>>> {
        let Some(connection) = self.connection.as_mut() else { return Poll::Ready(None) };
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                return Poll::Ready(Some(receive(request, respond, &self.status)));
            }
            Poll::Ready(Some(Err(error))) => self.close(connection_end(Err(error))),
            Poll::Ready(None) => self.close(ConnectionEnd::Closed),
            Poll::Pending => {
                if self.keepalive.as_mut().is_none_or(|keepalive| keepalive.poll(cx).is_pending()) {
                    return Poll::Pending;
                }
                self.status.set_ping_timeout();
                self.close(ConnectionEnd::PingTimeout);
            }
        }
        Poll::Ready(None)
    }

    /// Graceful end: GOAWAY, requests already on their way are still served, open tunnels go on. [`Self::accept`] returns `None` when the
    /// last one is done; whoever has a deadline calls [`Self::abort`] at it.
    pub fn drain(&mut self) {
        if let Some(connection) = self.connection.as_mut() {
            connection.graceful_shutdown();
        }
    }

    /// Abrupt end: GOAWAY NO_ERROR, then the connection closes and open tunnels fail at both ends. Go on calling
    /// [`Self::accept`] until it returns `None` so that the GOAWAY gets out.
    pub fn abort(&mut self) {
        self.aborting = true;
        if let Some(connection) = self.connection.as_mut() {
            connection.abrupt_shutdown(h2::Reason::NO_ERROR);
        }
    }

    /// How the connection ended, once [`Self::accept`] has returned `None`.
    #[must_use]
    pub fn end(&self) -> Option<&ConnectionEnd> {
        self.end.as_ref()
    }

    /// Dropping the library's connection fails the streams that are still open.
    fn close(&mut self, end: ConnectionEnd) {
        self.connection = None;
        self.keepalive = None;
        self.end = Some(if self.aborting { ConnectionEnd::Aborted } else { end });
    }
}

fn receive(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Payload>,
    status: &Arc<ConnectionStatus>,
) -> Result<Incoming, Malformed> {
    match ConnectHead::decode(&request) {
        Ok(head) => Ok(Incoming { head, receiving: request.into_body(), respond, status: Arc::clone(status) }),
        Err(error) => {
            let reason = match error {
                DecodeError::NotConnect => REASON_NOT_CONNECT,
                DecodeError::Authority(_) => REASON_BAD_AUTHORITY,
            };
            // A client that is gone already needs no answer.
            let _ = respond.send_response(refusal(Refusal::Malformed, reason), true);
            Err(Malformed(error))
        }
    }
}

fn refusal(refusal: Refusal, reason: &str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    if let Ok(value) = HeaderValue::from_str(reason) {
        response.headers_mut().insert(REASON_HEADER, value);
    }
    response
}

impl Incoming {
    /// Answers 200, with the baggage of the destination workload when given. Only after the application accepted its connection.
    ///
    /// # Errors
    /// The client is gone.
    pub fn accept(mut self, baggage: Option<&str>) -> Result<Tunnel, StreamError> {
        let mut response = Response::new(());
        if let Some(value) = baggage.filter(|text| !text.is_empty()).and_then(|text| HeaderValue::from_str(text).ok()) {
            response.headers_mut().insert(BAGGAGE, value);
        }
        let sending = self.respond.send_response(response, false).map_err(|error| self.status.stream_error(&error))?;
        Ok(Tunnel::new(sending, self.receiving, self.status, None))
    }

    /// Answers with a refusal and its reason code (`x-weft-reason`).
    pub fn refuse(mut self, why: Refusal, reason: &str) {
        // A client that is gone already needs no answer.
        let _ = self.respond.send_response(refusal(why, reason), true);
    }

    /// Ready when the client has withdrawn the request: whoever is still connecting to the application can stop.
    pub fn poll_withdrawn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(cx).map(|_| ())
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("head", &self.head).finish_non_exhaustive()
    }
}
