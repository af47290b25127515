//! An encrypted byte stream: the records of [`super::records`] over any transport, with large reads and writes.
//!
//! ```text
//! read:  transport --one read of up to 256 KiB--> lent buffer --opened in place--> the reader's buffer (what does not fit: `plain`)
//! write: the writer's bytes --sealed--> lent buffer --one write--> transport (what does not fit stays in `unsent`)
//! ```
//! Give `poll_read` a large buffer (64 KiB and more) and it is filled with as many records as there are; small ones work, at the
//! price of one more copy. Between turns a stream holds at most the part of a record that has arrived.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::CommonState;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::buffers::{TURN, give_back, lend};
use super::records::{Records, Session, sealed_room};

/// The largest record on the wire: header, 16 KiB and what sealing may add (RFC 8446 section 5.2).
const RECORD_WIRE: usize = 5 + (16 << 10) + 256;

/// Unopened bytes that are kept at most: one handshake message of 64 KiB, as large as rustls takes it, and a record.
const REST_LIMIT: usize = (64 << 10) + RECORD_WIRE;

/// Unsent bytes above this stay in the lent buffer; fewer are copied, so that a peer that does not read holds little.
const COPY_LIMIT: usize = 32 << 10;

/// An encrypted stream. See the [module](self).
pub struct TlsStream<S, C> {
    wire: Wire<S, C>,
    plain: Plain,
}

/// The transport and what is kept of it.
struct Wire<S, C> {
    io: S,
    records: Records<C>,
    /// Arrived and not opened: less than a record, or parts of a handshake message.
    rest: Vec<u8>,
    unsent: Unsent,
    failed: bool,
}

/// Opened bytes that nobody had room for.
#[derive(Debug, Default)]
struct Plain {
    bytes: Vec<u8>,
    taken: usize,
}

/// Sealed bytes that the transport did not take yet.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What one read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// Something was opened, perhaps without bytes for the application.
    Some,
    /// The peer said in order that nothing more comes.
    End,
}

impl Plain {
    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Adds what `write` appends.
    fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.bytes.truncate(self.end);
        let done = write(&mut self.bytes);
        self.end = self.bytes.len();
        done
    }

    fn clear(&mut self) {
        give_back(std::mem::take(self).bytes);
    }
}

impl<S, C> Wire<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Session,
{
    /// Ready when nothing is unsent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let pending = &self.unsent.bytes[self.unsent.start..self.unsent.end];
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, pending))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.start += sent;
        }
        if self.unsent.end > 0 {
            self.unsent.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// One read of about `want` bytes; what it brings is opened and given to `sink`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        want: usize,
        sink: impl FnMut(&[u8]),
    ) -> Poll<io::Result<Received>> {
        if self.records.peer_closed() {
            return Poll::Ready(Ok(Received::End));
        }
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let kept = self.rest.len();
        if kept > REST_LIMIT {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long")));
        }
        let mut buffer = lend();
        let until = (kept + want.max(RECORD_WIRE)).min(buffer.len());
        let mut read = ReadBuf::new(&mut buffer[kept..until]);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let count = read.filled().len();
        let received = match polled {
            Poll::Ready(Ok(())) if count == 0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(())) => {
                buffer[..kept].copy_from_slice(&self.rest);
                Poll::Ready(self.open(&mut buffer[..kept + count], sink).map(|_| Received::Some))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        give_back(buffer);
        // What rustls answers, the alert of an error included; an error of its own comes first.
        match (received, self.poll_send(cx)) {
            (Poll::Ready(Ok(_)), Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (received, _) => received,
        }
    }

    /// Opens what is in `arrived` and keeps its rest. Says whether the handshake is over.
    fn open(&mut self, arrived: &mut [u8], sink: impl FnMut(&[u8])) -> io::Result<bool> {
        match self.unsent.append(|reply| self.records.open(arrived, reply, sink)) {
            Ok(opened) => {
                self.rest.clear();
                self.rest.extend_from_slice(&arrived[opened.consumed..]);
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                }
                Ok(opened.established)
            }
            Err(error) => {
                self.failed = true;
                self.unsent.append(|reply| self.records.last_words(arrived, reply));
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// Seals as much of `plaintext` as goes into one turn and begins to send it. Call it when nothing is unsent.
    fn seal(&mut self, cx: &mut Context<'_>, plaintext: &[u8]) -> io::Result<usize> {
        let plaintext = &plaintext[..plaintext.len().min(TURN)];
        let mut buffer = lend();
        let sealed = match self.records.seal(&mut self.rest, plaintext, &mut buffer[..sealed_room(plaintext.len())]) {
            Ok(sealed) => sealed,
            Err(error) => {
                give_back(buffer);
                self.failed = true;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        self.unsent = Unsent { bytes: buffer, start: 0, end: sealed };
        if self.poll_send(cx)?.is_pending() && self.unsent.end - self.unsent.start <= COPY_LIMIT {
            let left = self.unsent.bytes[self.unsent.start..self.unsent.end].to_vec();
            self.unsent.clear();
            self.unsent = Unsent { start: 0, end: left.len(), bytes: left };
        }
        Ok(plaintext.len())
    }

    /// Ready when both sides are agreed and everything that says so is sent. Application bytes that came along go to `sink`.
    fn poll_handshake(&mut self, cx: &mut Context<'_>, mut sink: impl FnMut(&[u8])) -> Poll<io::Result<()>> {
        loop {
            let mut arrived = std::mem::take(&mut self.rest);
            let opened = self.open(&mut arrived, &mut sink);
            match (opened, self.poll_send(cx)) {
                (Ok(_), Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                (Ok(_), Poll::Pending) => return Poll::Pending,
                (Ok(true), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
                (Ok(false), Poll::Ready(Ok(()))) => {}
                // The alert went as far as the transport takes it at once; nobody waits for more.
                (Err(error), _) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_receive(cx, RECORD_WIRE, &mut sink))?;
            if self.records.peer_closed() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S, C> TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Session,
{
    /// The handshake on `io`. The time limit is the caller's.
    ///
    /// # Errors
    /// Those of the transport, and a `rustls::Error` inside of `InvalidData`; the peer was sent the alert.
    pub(super) async fn handshake(io: S, session: C) -> io::Result<Self> {
        let records = Records::new(session);
        let wire = Wire { io, records, rest: Vec::new(), unsent: Unsent::default(), failed: false };
        let mut stream = Self { wire, plain: Plain::default() };
        std::future::poll_fn(|cx| {
            let Self { wire, plain } = &mut stream;
            wire.poll_handshake(cx, |bytes| plain.bytes.extend_from_slice(bytes))
        })
        .await?;
        Ok(stream)
    }

    /// The transport, and what was agreed with the peer.
    #[must_use]
    pub fn get_ref(&self) -> (&S, &CommonState) {
        (&self.wire.io, self.wire.records.common())
    }
}

impl<S, C> AsyncRead for TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Session + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, plain } = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            if !plain.is_empty() {
                let count = buffer.remaining().min(plain.bytes.len() - plain.taken);
                buffer.put_slice(&plain.bytes[plain.taken..plain.taken + count]);
                plain.take(count);
            }
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            let want = buffer.remaining();
            let received = ready!(wire.poll_receive(cx, want, |bytes| {
                let fits = if plain.is_empty() { buffer.remaining().min(bytes.len()) } else { 0 };
                buffer.put_slice(&bytes[..fits]);
                plain.bytes.extend_from_slice(&bytes[fits..]);
            }))?;
            if received == Received::End {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// For who walks through the bytes where they lie. Gives all that one read brought.
impl<S, C> AsyncBufRead for TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Session + Unpin,
{
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { wire, plain } = self.get_mut();
        while plain.is_empty() {
            let received = ready!(wire.poll_receive(cx, TURN, |bytes| plain.bytes.extend_from_slice(bytes)))?;
            if received == Received::End {
                return Poll::Ready(Ok(&[]));
            }
        }
        Poll::Ready(Ok(&plain.bytes[plain.taken..]))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.plain.take(count);
    }
}

impl<S, C> AsyncWrite for TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Session + Unpin,
{
    /// Takes up to 256 KiB, seals and sends them. What the transport does not take at once is sent before anything else; until then
    /// nothing more is taken.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.wire.failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(self.wire.poll_send(cx))?;
        Poll::Ready(self.wire.seal(cx, data))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_send(cx))?;
        Pin::new(&mut self.wire.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut self.wire;
        if !wire.failed {
            let closed = wire.unsent.append(|reply| wire.records.close(&mut wire.rest, reply));
            closed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        ready!(wire.poll_send(cx))?;
        Pin::new(&mut wire.io).poll_shutdown(cx)
    }
}

impl<S, C: Session> fmt::Debug for TlsStream<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("failed", &self.wire.failed).finish_non_exhaustive()
    }
}
