//! One tunnel: a stream of an HTTP/2 connection as bytes both ways.
//!
//! ```text
//! sending:    Open --finish--> Finished         receiving:  Open --END_STREAM--> Complete
//!               '----reset---> Reset                          '----anything else--> Failed(StreamError)
//! ```
//! Rules that keep the *connection* alive for its other streams (`crates.md` trap 1):
//! received frames leave the connection at once and wait here, small ones joined, and window goes back only for what
//! was written on ([`Tunnel::release`]); nothing is sent without room ([`Tunnel::poll_room`]); an empty frame is sent only
//! with END_STREAM; and small writes are joined while earlier ones of the same stream still queue.
//!
//! A relay uses the `poll_*` calls, all from one task. Others (TLS inside a tunnel, hyper) use `AsyncRead`/`AsyncWrite`;
//! for those a write may stay here until `flush`, the next read or the next write, as with any buffered writer.
//!
//! Dropping a tunnel before both directions are complete resets the stream (CANCEL): never a complete answer.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{ResetCode, StreamError};
use crate::payload::Payload;
use crate::status::ConnectionStatus;

mod receiving;
mod sending;

pub use sending::BACKLOG_LIMIT;

use receiving::Receiving;
use sending::Sending;

/// Largest piece that one `AsyncWrite::poll_write` takes.
const WRITE_PIECE: usize = 64 << 10;

/// One stream. See the [module](self).
pub struct Tunnel {
    sending: Sending,
    receiving: Receiving,
    peer_baggage: Option<String>,
    /// Whatever must live as long as the tunnel: the pool's lease.
    held: Option<Box<dyn Any + Send + Sync>>,
}

impl Tunnel {
    pub(crate) fn new(
        sending: h2::SendStream<Payload>,
        receiving: h2::RecvStream,
        status: Arc<ConnectionStatus>,
        peer_baggage: Option<String>,
    ) -> Self {
        Self {
            sending: Sending::new(sending, Arc::clone(&status)),
            receiving: Receiving::new(receiving, status),
            peer_baggage,
            held: None,
        }
    }

    /// Keeps a value alive until the tunnel is dropped.
    pub(crate) fn hold(&mut self, value: Box<dyn Any + Send + Sync>) {
        self.held = Some(value);
    }

    /// The `baggage` of the server's answer; always `None` on the server's own end.
    #[must_use]
    pub fn peer_baggage(&self) -> Option<&str> {
        self.peer_baggage.as_deref()
    }

    /// The next bytes, at most `limit` (not 0) of them; `None` is the orderly end (END_STREAM). Empties the connection's queue of
    /// this stream on the way. The peer gets window back only by [`Self::release`].
    ///
    /// # Errors
    /// How the stream failed, after everything that arrived before was returned.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.receiving.poll_take(cx, limit)
    }

    /// Takes arrived frames out of the connection without handing them on: for as long as what was received cannot be written on.
    /// Registers for more. Bounded by the stream window.
    pub fn soak(&mut self, cx: &mut Context<'_>) {
        self.receiving.fill(cx);
    }

    /// Says that `count` bytes from [`Self::poll_receive`] are written on; the peer may send as many again.
    pub fn release(&mut self, count: usize) {
        self.receiving.release(count);
    }

    /// Whether the peer's orderly end has arrived, even if bytes before it still wait in [`Self::poll_receive`].
    #[must_use]
    pub fn is_receive_complete(&self) -> bool {
        self.receiving.is_complete()
    }

    /// How many bytes, at most about `want`, may be sent now. Taken from the window until [`Self::send`] or [`Self::release_room`].
    ///
    /// # Errors
    /// How the stream failed.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, StreamError>> {
        self.sending.poll_room(cx, want)
    }

    /// Gives back room that is not used now, so that other streams of the connection can.
    pub fn release_room(&mut self) {
        self.sending.release_room();
    }

    /// Sends, or joins with what waits. No more than the room that [`Self::poll_room`] gave. Call [`Self::poll_flush`] afterwards.
    ///
    /// # Errors
    /// How the stream failed; [`StreamError::Ended`] after `finish` or `reset`.
    pub fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.sending.send(data)
    }

    /// Ready when nothing is gathered here any more; does not wait for the wire.
    ///
    /// # Errors
    /// How the stream failed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.sending.poll_flush(cx)
    }

    /// Ready when every byte that was sent has left for the connection's transport. A reset before that drops the rest.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sending.poll_drained(cx)
    }

    /// Half-close: END_STREAM behind everything sent so far. The other direction stays open. Harmless when repeated.
    ///
    /// # Errors
    /// How the stream failed before.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.sending.finish()
    }

    /// RST_STREAM; drops what still queues. The code for a reset application socket is [`ResetCode::CONNECT_ERROR`].
    pub fn reset(&mut self, code: ResetCode) {
        self.sending.reset(code);
    }

    /// Ready when the stream failed, even if nobody reads or writes. [`ResetCode::NO_ERROR`] after the peer's orderly end only
    /// says that the peer wants no more bytes.
    pub fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.sending.poll_failed(cx)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // Whoever waits for an answer has said what he wanted to say. A failure of sending shows when sending.
        let _ = self.sending.poll_flush(cx);
        if let Some(data) = ready!(self.receiving.poll_take(cx, buffer.remaining()))? {
            buffer.put_slice(&data);
            self.receiving.release(data.len());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.sending.poll_room(cx, data.len().min(WRITE_PIECE)))?;
        let count = room.min(data.len()).min(WRITE_PIECE);
        self.sending.send(Bytes::copy_from_slice(&data[..count]))?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.poll_flush(cx).map_err(Into::into)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.finish().map_err(Into::into))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("complete", &self.receiving.is_complete()).finish_non_exhaustive()
    }
}
