//! The opening end of one connection: handshake, then one tunnel per CONNECT.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect::{BAGGAGE, ConnectHead, EncodeError, REASON_HEADER, header_text, merged};
use crate::error::{ConnectionEnd, ResetCode, StreamError};
use crate::keepalive::Keepalive;
use crate::payload::Payload;
use crate::settings::{ConnectionSettings, LATE_FRAMES_FORGIVEN, MAX_TUNNELS, RESET_STREAMS_REMEMBERED};
use crate::status::{ConnectionStatus, connection_end};
use crate::tunnel::Tunnel;

/// A connection that can open tunnels. Clones share it; when all clones and all tunnels are gone it closes in order.
#[derive(Clone)]
pub struct ClientConnection {
    requests: h2::client::SendRequest<Payload>,
    status: Arc<ConnectionStatus>,
}

/// Moves the bytes of one connection: poll it for as long as anything of the connection is in use. Ends when the connection does;
/// dropping it cuts the connection and all its tunnels.
#[must_use = "a connection does nothing unless its driver is polled"]
pub struct ClientDriver<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    connection: h2::client::Connection<Io, Payload>,
    keepalive: Option<Keepalive>,
    status: Arc<ConnectionStatus>,
}

/// Why no tunnel was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The server answered with something else than 200. 400, 401 and 503 are its words for malformed, denied and unavailable.
    #[error("refused with status {status}{}", reason.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason code, from a server of ours.
        reason: Option<String>,
    },
    /// The stream or the connection failed before the answer.
    #[error("no answer: {0}")]
    Stream(#[from] StreamError),
    /// The head cannot be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl OpenError {
    /// Whether the server certainly did nothing with the request, so that it may be sent again on another connection.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Stream(StreamError::GoneAway(_) | StreamError::Reset(ResetCode::REFUSED_STREAM)))
    }
}

/// Starts HTTP/2 on a ready encrypted stream. Does not wait for the server's settings; give it a deadline all the same.
///
/// # Errors
/// How the stream failed while the preface was written.
pub async fn handshake<Io>(
    io: Io,
    settings: &ConnectionSettings,
) -> Result<(ClientConnection, ClientDriver<Io>), ConnectionEnd>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame_size)
        .max_send_buffer_size(settings.max_send_buffer_size)
        .data_frame_budget(settings.data_frame_budget)
        .max_header_list_size(settings.max_header_list_size)
        .max_concurrent_reset_streams(RESET_STREAMS_REMEMBERED)
        .max_local_error_reset_streams(Some(LATE_FRAMES_FORGIVEN))
        .initial_max_send_streams(MAX_TUNNELS)
        .enable_push(false)
        .handshake::<Io, Payload>(io)
        .await
        .map_err(|error| end_of_handshake(Err(error)))?;
    let status = Arc::<ConnectionStatus>::default();
    let keepalive = connection.ping_pong().map(|pings| Keepalive::new(pings, settings.keepalive));
    let driver = ClientDriver { connection, keepalive, status: Arc::clone(&status) };
    Ok((ClientConnection { requests, status }, driver))
}

fn end_of_handshake(result: Result<(), h2::Error>) -> ConnectionEnd {
    match connection_end(result) {
        ConnectionEnd::Closed => ConnectionEnd::Io("closed during the handshake".to_owned()),
        end => end,
    }
}

impl ClientConnection {
    /// Asks the server for a tunnel and waits for its 200. Dropping the future withdraws the request. No deadline of its own.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, head: &ConnectHead) -> Result<Tunnel, OpenError> {
        let request = head.encode()?;
        let mut requests = self.requests.clone();
        poll_fn(|cx| requests.poll_ready(cx)).await.map_err(|error| Self::unsent(&error))?;
        let (response, sending) = requests.send_request(request, false).map_err(|error| Self::unsent(&error))?;
        // The clone would count as a user of the connection for as long as the server thinks about it.
        drop(requests);
        let response = response.await.map_err(|error| self.status.stream_error(&error))?;
        if response.status() != StatusCode::OK {
            let reason = header_text(response.headers(), &REASON_HEADER);
            return Err(OpenError::Refused { status: response.status().as_u16(), reason });
        }
        let baggage = merged(response.headers(), &BAGGAGE);
        Ok(Tunnel::new(sending, response.into_body(), Arc::clone(&self.status), baggage))
    }

    /// Tunnels that the server lets us have at a time, at most [`MAX_TUNNELS`]. More than that would queue inside.
    #[must_use]
    pub fn tunnel_limit(&self) -> usize {
        self.requests.current_max_send_streams().min(MAX_TUNNELS)
    }

    /// Whether new tunnels can be opened: not after a GOAWAY or when the connection is gone.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let mut requests = self.requests.clone();
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(requests.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// An error before the request left: whatever it was, nothing was processed.
    fn unsent(error: &h2::Error) -> OpenError {
        OpenError::Stream(StreamError::GoneAway(ResetCode(error.reason().map_or(0, Into::into))))
    }
}

impl<Io> Future for ClientDriver<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    type Output = ConnectionEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.connection).poll(cx) {
            return Poll::Ready(connection_end(result));
        }
        if this.keepalive.as_mut().is_some_and(|keepalive| keepalive.poll(cx).is_ready()) {
            this.status.set_ping_timeout();
            return Poll::Ready(ConnectionEnd::PingTimeout);
        }
        Poll::Pending
    }
}
