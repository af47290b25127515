//! The opening end of one connection: handshake, then one tunnel per CONNECT.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::connect::{BAGGAGE, ConnectHead, EncodeError, REASON_HEADER, header_text, merged};
use crate::driver::{Driver, Shared};
use crate::error::{ConnectionEnd, ResetCode, StreamError};
use crate::handle::Handle;
use crate::http2::Role;
use crate::settings::ConnectionSettings;
use crate::tunnel::Tunnel;

/// A connection that can open tunnels. Clones share it; when all clones and all tunnels are gone it closes in order.
pub struct ClientConnection {
    shared: Shared,
}

/// Moves the bytes of one connection: poll it for as long as anything of the connection is in use. Ends when the connection does;
/// dropping it cuts the connection and all its tunnels.
#[must_use = "a connection does nothing unless its driver is polled"]
pub struct ClientDriver<Io> {
    driver: Driver<Io>,
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

/// Starts HTTP/2 on a ready encrypted stream. Does not wait for the server, nor for its own first bytes to leave: they go with the first
/// request, once the driver is polled.
///
/// # Errors
/// None today; a handshake may come to need an answer.
pub async fn handshake<Io>(
    io: Io,
    settings: &ConnectionSettings,
) -> Result<(ClientConnection, ClientDriver<Io>), ConnectionEnd>
where
    Io: AsyncBufRead + AsyncWrite + Unpin,
{
    let driver = Driver::new(io, Role::Client, settings);
    driver.shared().borrow_mut().count_user(true);
    Ok((ClientConnection { shared: Rc::clone(driver.shared()) }, ClientDriver { driver }))
}

impl ClientConnection {
    /// Asks the server for a tunnel and waits for its 200. Dropping the future withdraws the request. No deadline of its own.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, head: &ConnectHead) -> Result<Tunnel, OpenError> {
        let request = head.encode()?;
        poll_fn(|cx| self.shared.borrow_mut().poll_open(cx.waker())).await?;
        let key = self.shared.borrow_mut().open(&request);
        let stream = Handle::new(&self.shared, key);
        let answer = poll_fn(|cx| stream.with(|connection, key| connection.poll_answer(key, cx.waker()))).await?;
        match status_of(answer.get(":status")) {
            Some(200) => Ok(Tunnel::new(stream, merged(&answer, BAGGAGE))),
            Some(status) => Err(OpenError::Refused { status, reason: header_text(&answer, REASON_HEADER) }),
            None => Err(OpenError::Stream(StreamError::Reset(ResetCode::PROTOCOL_ERROR))),
        }
    }

    /// Tunnels that the server lets us have at a time, at most [`crate::settings::MAX_TUNNELS`]. More than that would wait.
    #[must_use]
    pub fn tunnel_limit(&self) -> usize {
        self.shared.borrow().stream_limit()
    }

    /// Whether new tunnels can be opened: not after a GOAWAY or when the connection is gone.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.shared.borrow().open_error().is_none()
    }
}

/// Three digits (RFC 9110 section 15).
fn status_of(value: Option<&[u8]>) -> Option<u16> {
    let digits: &[u8; 3] = value?.try_into().ok()?;
    digits.iter().try_fold(0, |status, digit| digit.is_ascii_digit().then(|| status * 10 + u16::from(digit - b'0')))
}

impl Clone for ClientConnection {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().count_user(true);
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.shared.borrow_mut().count_user(false);
    }
}

impl<Io> Future for ClientDriver<Io>
where
    Io: AsyncBufRead + AsyncWrite + Unpin,
{
    type Output = ConnectionEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        self.driver.poll(cx)
    }
}
