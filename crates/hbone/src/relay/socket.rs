//! A TCP socket as an end of a relay.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::buffers::Buffers;
use super::end::{Broken, End};

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
}

impl<Watch: Future<Output = io::Result<()>>> End for SocketEnd<'_, '_, Watch> {
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.socket().poll_read_ready(cx).map_err(|error| broken(&error))
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        buffers: &Buffers,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        // Not `try_read`: this one knows that a short read emptied the socket and saves the call that would say so.
        let data = ready!(buffers.poll_read(cx, &mut self.reading, limit)).map_err(|error| broken(&error))?;
        Poll::Ready(Ok((!data.is_empty()).then_some(data)))
    }

    fn put_on(&mut self, _count: usize) {}

    fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Broken>> {
        ready!(self.socket().poll_write_ready(cx)).map_err(|error| broken(&error))?;
        Poll::Ready(Ok(want))
    }

    fn release_room(&mut self) {}

    fn poll_put(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, Broken>> {
        loop {
            match self.socket().try_write(data) {
                Ok(count) => {
                    data.advance(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket().poll_write_ready(cx)).map_err(|error| broken(&error))?;
                }
                Err(error) => return Poll::Ready(Err(broken(&error))),
            }
        }
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

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

fn broken(error: &io::Error) -> Broken {
    if error.kind() == io::ErrorKind::TimedOut { Broken::Timeout } else { Broken::Reset }
}
