//! A TCP socket as an end of a relay.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::buffers::Buffers;
use super::end::{Broken, End, Source, Step};

/// Makes every close of the socket a RST (SO_LINGER {1, 0}) until a relay ends in order. Call it as soon as there is a socket:
/// then an agent that is killed, or a handler that returns early, cannot look like a complete answer.
///
/// # Errors
/// Those of setsockopt.
pub fn reset_unless_orderly(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Both halves of one socket; `Watch` is ready when the kernel reports an error on it.
pub(super) struct SocketEnd<'a, 'b, Watch> {
    reading: ReadHalf<'a>,
    writing: &'b WriteHalf<'a>,
    watch: Pin<&'b mut Watch>,
}

impl<'a, 'b, Watch: Future<Output = io::Result<()>>> SocketEnd<'a, 'b, Watch> {
    pub(super) fn new(reading: ReadHalf<'a>, writing: &'b WriteHalf<'a>, watch: Pin<&'b mut Watch>) -> Self {
        Self { reading, writing, watch }
    }

    fn socket(&self) -> &TcpStream {
        self.writing.as_ref()
    }

    /// Ready when there may be something to read.
    pub(super) fn poll_input(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_read_ready(cx)
    }

    /// Reads once, 0 bytes at the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        if let [slot] = slots {
            // Not `try_read`: this one knows that a short read emptied the socket and saves the call that would say so.
            let mut buffer = ReadBuf::new(slot);
            ready!(Pin::new(&mut self.reading).poll_read(cx, &mut buffer))?;
            return Poll::Ready(Ok(buffer.filled().len()));
        }
        loop {
            match self.socket().try_read_vectored(slots) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_input(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    /// Writes once.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let written = match pieces {
                [piece] => self.socket().try_write(piece),
                pieces => self.socket().try_write_vectored(pieces),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket().poll_write_ready(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    /// Writes what the socket did not take before.
    fn write_carried(&self, cx: &mut Context<'_>, carry: &mut Bytes) -> Step {
        match self.poll_write(cx, &[IoSlice::new(carry)]) {
            Poll::Ready(Ok(count)) => {
                carry.advance(count);
                Step::Moved(count)
            }
            Poll::Ready(Err(error)) => Step::SinkBroken(broken(&error)),
            Poll::Pending => Step::Blocked,
        }
    }
}

impl<Watch: Future<Output = io::Result<()>>> End for SocketEnd<'_, '_, Watch> {
    fn poll_drained(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn finish(&mut self) -> Result<(), Broken> {
        SockRef::from(self.socket()).shutdown(Shutdown::Write).map_err(|error| broken(&error))
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        // Waits for the error event alone: after a FIN the socket is readable for ever, and waiting for that would spin.
        ready!(self.watch.as_mut().poll(cx)).err();
        let cause = SockRef::from(self.socket()).take_error().ok().flatten();
        Poll::Ready(cause.map_or(Broken::Reset, |error| broken(&error)))
    }

    fn close_orderly(&mut self) {
        // Fails only on a socket that is gone.
        let _ = SockRef::from(self.socket()).set_linger(None);
    }

    fn reset(&mut self) {
        // Also for callers that forgot. The close itself comes with the drop, right after.
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}

/// Socket to socket, through the worker's buffer.
impl<A, B> Source<SocketEnd<'_, '_, B>> for SocketEnd<'_, '_, A>
where
    A: Future<Output = io::Result<()>>,
    B: Future<Output = io::Result<()>>,
{
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut SocketEnd<'_, '_, B>,
        carry: &mut Bytes,
        want: usize,
        buffers: &Buffers,
    ) -> Step {
        if !carry.is_empty() {
            return sink.write_carried(cx, carry);
        }
        match self.poll_input(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Step::SourceBroken(broken(&error)),
            Poll::Pending => return Step::Reading,
        }
        match sink.socket().poll_write_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Step::SinkBroken(broken(&error)),
            Poll::Pending => return Step::Blocked,
        }
        let mut scratch = buffers.scratch(want);
        let count = match self.poll_read(cx, &mut [IoSliceMut::new(&mut scratch)]) {
            Poll::Ready(Ok(0)) => return Step::Ended,
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Step::SourceBroken(broken(&error)),
            Poll::Pending => return Step::Reading,
        };
        let written = match sink.poll_write(cx, &[IoSlice::new(&scratch[..count])]) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Step::SinkBroken(broken(&error)),
            Poll::Pending => 0,
        };
        if written < count {
            *carry = Bytes::copy_from_slice(&scratch[written..count]);
        }
        Step::Moved(written)
    }
}

pub(super) fn broken(error: &io::Error) -> Broken {
    if error.kind() == io::ErrorKind::TimedOut { Broken::Timeout } else { Broken::Reset }
}
