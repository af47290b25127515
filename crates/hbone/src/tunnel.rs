//! One tunnel: a stream of an HTTP/2 connection as bytes both ways.
//!
//! ```text
//! sending:    Open --finish--> Finished         receiving:  Open --END_STREAM--> Complete
//!               '----reset---> Reset                          '----anything else--> Failed(StreamError)
//! ```
//! Rules that keep the *connection* alive for its other streams: what is received waits here, in few blocks, and window goes back only
//! for what was written on ([`Tunnel::release`]); nothing is sent without room ([`Tunnel::poll_room`]); an empty frame is sent only with
//! END_STREAM; and small writes are joined while earlier ones of the same stream still wait for the transport.
//!
//! A relay uses the `poll_*` calls, all from one task. Others (TLS inside a tunnel, hyper) use `AsyncRead`/`AsyncWrite`.
//!
//! Dropping a tunnel before both directions are complete resets the stream (CANCEL): never a complete answer.

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{ResetCode, StreamError};
use crate::handle::Handle;
use crate::http2::Arrived;

pub use crate::http2::BACKLOG_LIMIT;

/// Largest piece that one `AsyncWrite::poll_write` takes.
const WRITE_PIECE: usize = 64 << 10;

/// Pieces that one write to a socket takes at most. 16, which is a mebibyte.
const MOST_PIECES: usize = 16;

/// One stream. See the [module](self).
pub struct Tunnel {
    stream: Handle,
    /// Where the output stood behind the last that was sent here.
    sent_until: u64,
    peer_baggage: Option<Box<str>>,
    /// Whatever must live as long as the tunnel: the pool's lease.
    held: Option<Box<dyn Any>>,
}

impl Tunnel {
    pub(crate) fn new(stream: Handle, peer_baggage: Option<String>) -> Self {
        Self { stream, sent_until: 0, peer_baggage: peer_baggage.map(String::into_boxed_str), held: None }
    }

    /// Keeps a value alive until the tunnel is dropped.
    pub(crate) fn hold(&mut self, value: Box<dyn Any>) {
        self.held = Some(value);
    }

    /// The `baggage` of the server's answer; always `None` on the server's own end.
    #[must_use]
    pub fn peer_baggage(&self) -> Option<&str> {
        self.peer_baggage.as_deref()
    }

    /// Takes [`Self::peer_baggage`] out: the tunnel no longer keeps it.
    pub fn take_peer_baggage(&mut self) -> Option<Box<str>> {
        self.peer_baggage.take()
    }

    /// What there is to take: bytes, or the orderly end (END_STREAM) behind all of them.
    ///
    /// # Errors
    /// How the stream failed, after everything that arrived before was taken.
    pub fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived, StreamError>> {
        self.stream.with(|connection, key| connection.poll_arrived(key, cx.waker()))
    }

    /// Hands what has arrived to `write`, in pieces, and takes what that says it has written. The peer gets window back only by
    /// [`Self::release`]. `write` must not use this connection.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn take_with(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.stream.with(|connection, key| {
            let mut pieces = [IoSlice::new(&[]); MOST_PIECES];
            let count = connection.arrived(key, &mut pieces);
            let written = write(&pieces[..count]);
            if let Poll::Ready(Ok(written)) = written {
                connection.take(key, written);
            }
            written
        })
    }

    /// Says that `count` bytes that were taken are written on; the peer may send as many again.
    pub fn release(&mut self, count: usize) {
        self.stream.with(|connection, key| connection.release(key, count));
    }

    /// Whether the peer's orderly end has arrived, even if bytes before it still wait.
    #[must_use]
    pub fn is_receive_complete(&self) -> bool {
        self.stream.with(|connection, key| connection.is_receive_complete(key))
    }

    /// How many bytes, at most `want`, may be sent now, by a [`Self::send`] or [`Self::send_with`] that follows at once.
    ///
    /// # Errors
    /// How the stream failed; [`StreamError::Ended`] after `finish`.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, StreamError>> {
        self.stream.with(|connection, key| connection.poll_room(key, cx.waker(), want))
    }

    /// Sends. No more than the room that [`Self::poll_room`] just gave.
    pub fn send(&mut self, data: &[u8]) {
        self.sent_until = self.stream.with(|connection, key| {
            connection.send(key, data);
            connection.position()
        });
    }

    /// Sends what `read` reads, straight into the frames that go out. No more than the room that [`Self::poll_room`] just gave. `read` must
    /// not use this connection.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn send_with(
        &mut self,
        room: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let (filled, position) =
            self.stream.with(|connection, key| (connection.fill(key, room, read), connection.position()));
        if matches!(filled, Poll::Ready(Ok(1..))) {
            self.sent_until = position;
        }
        filled
    }

    /// Ready when every byte that was sent has left for the connection's transport, or never will.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let position = self.sent_until;
        self.stream.with(|connection, _| connection.poll_left(position, cx.waker()))
    }

    /// Half-close: END_STREAM behind everything sent so far. The other direction stays open. Harmless when repeated.
    ///
    /// # Errors
    /// How the stream failed before.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.stream.with(|connection, key| connection.finish(key))
    }

    /// RST_STREAM behind what was sent. The code for a reset application socket is [`ResetCode::CONNECT_ERROR`].
    pub fn reset(&mut self, code: ResetCode) {
        self.stream.with(|connection, key| connection.reset(key, code));
    }

    /// Ready when the stream failed, even if nobody reads or writes. [`ResetCode::NO_ERROR`] after the peer's orderly end only
    /// says that the peer wants no more bytes.
    pub fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.stream.with(|connection, key| connection.poll_failed(key, cx.waker()))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.stream.with(|connection, key| {
            if let Arrived::Bytes(_) = ready!(connection.poll_arrived(key, cx.waker()))? {
                let first = connection.first_arrived(key);
                let count = first.len().min(buffer.remaining());
                buffer.put_slice(&first[..count]);
                connection.take(key, count);
                connection.release(key, count);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, data.len().min(WRITE_PIECE)))?;
        self.send(&data[..room]);
        Poll::Ready(Ok(room))
    }

    /// Nothing is kept here: what was written leaves with the next turn of the connection.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(Into::into))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("complete", &self.is_receive_complete()).finish_non_exhaustive()
    }
}
