//! A TCP socket as an end of a relay.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::buffers::Buffers;
use super::end::{Broken, Carry, End, Source, Step};

/// Makes every close of the socket a RST (SO_LINGER {1, 0}) until a relay ends in order. Call it as soon as there is a socket:
/// then an agent that is killed, or a handler that returns early, cannot look like a complete answer.
///
/// # Errors
/// Those of setsockopt.
pub fn reset_unless_orderly(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Both halves of one socket.
pub(super) struct SocketEnd<'a, 'b> {
    reading: ReadHalf<'a>,
    writing: &'b WriteHalf<'a>,
    /// Ready when the kernel reports an error. Made when it is first asked for: while both directions wait for input nobody does.
    watch: Option<Watch<'b>>,
}

type Watch<'b> = Pin<Box<dyn Future<Output = io::Result<()>> + 'b>>;

async fn error_event(half: &WriteHalf<'_>) -> io::Result<()> {
    half.ready(Interest::ERROR).await.map(|_| ())
}

impl<'a, 'b> SocketEnd<'a, 'b> {
    pub(super) fn new(reading: ReadHalf<'a>, writing: &'b WriteHalf<'a>) -> Self {
        Self { reading, writing, watch: None }
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
    fn write_carried(&self, cx: &mut Context<'_>, mut rest: Box<Bytes>, carry: &mut Carry) -> Step {
        let written = self.poll_write(cx, &[IoSlice::new(&rest)]);
        rest.advance(if let Poll::Ready(Ok(count)) = &written { *count } else { 0 });
        *carry = Some(rest).filter(|rest| !rest.is_empty());
        match written {
            Poll::Ready(Ok(count)) => Step::Moved(count),
            Poll::Ready(Err(error)) => Step::SinkBroken(broken(&error)),
            Poll::Pending => Step::Blocked,
        }
    }
}

impl End for SocketEnd<'_, '_> {
    fn poll_drained(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn finish(&mut self) -> Result<(), Broken> {
        SockRef::from(self.socket()).shutdown(Shutdown::Write).map_err(|error| broken(&error))
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        // Waits for the error event alone: after a FIN the socket is readable for ever, and waiting for that would spin.
        let writing = self.writing;
        ready!(self.watch.get_or_insert_with(|| Box::pin(error_event(writing))).as_mut().poll(cx)).err();
        let cause = SockRef::from(self.socket()).take_error().ok().flatten();
        Poll::Ready(cause.map_or(Broken::Reset, |error| broken(&error)))
    }

    fn stop_watching(&mut self) {
        self.watch = None;
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
impl<'a, 'b> Source<SocketEnd<'a, 'b>> for SocketEnd<'_, '_> {
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut SocketEnd<'a, 'b>,
        carry: &mut Carry,
        want: usize,
        buffers: &Buffers,
    ) -> Step {
        if let Some(rest) = carry.take() {
            return sink.write_carried(cx, rest, carry);
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
            *carry = Some(Box::new(Bytes::copy_from_slice(&scratch[written..count])));
        }
        Step::Moved(written)
    }
}

pub(super) fn broken(error: &io::Error) -> Broken {
    if error.kind() == io::ErrorKind::TimedOut { Broken::Timeout } else { Broken::Reset }
}
