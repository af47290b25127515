//! A tunnel as an end of a relay, and the two short ways between it and a socket.

use std::task::{Context, Poll, ready};

use super::buffers::Buffers;
use super::end::{Broken, Carry, End, Source, Step};
use super::socket::{self, SocketEnd};
use crate::error::{ResetCode, StreamError};
use crate::http2::Arrived;
use crate::tunnel::Tunnel;

pub(super) struct TunnelEnd<'t>(pub(super) &'t mut Tunnel);

impl TunnelEnd<'_> {
    /// RST_STREAM NO_ERROR behind a complete answer only ends our sending; everything else, and NO_ERROR without END_STREAM,
    /// means that something is missing.
    fn sending_failed(&self, error: StreamError) -> Broken {
        if error == StreamError::Reset(ResetCode::NO_ERROR) && self.0.is_receive_complete() {
            return Broken::Unwanted;
        }
        broken(error)
    }
}

impl End for TunnelEnd<'_> {
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_drained(cx)
    }

    fn finish(&mut self) -> Result<(), Broken> {
        self.0.finish().map_err(|error| self.sending_failed(error))
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let error = ready!(self.0.poll_failed(cx));
        Poll::Ready(self.sending_failed(error))
    }

    fn stop_watching(&mut self) {}

    fn close_orderly(&mut self) {}

    fn reset(&mut self) {
        self.0.reset(ResetCode::CONNECT_ERROR);
    }
}

/// Socket to tunnel: read straight into the frames that go out.
impl<'t> Source<TunnelEnd<'t>> for SocketEnd<'_, '_> {
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut TunnelEnd<'t>,
        _carry: &mut Carry,
        want: usize,
        _buffers: &Buffers,
    ) -> Step {
        match self.poll_input(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Step::SourceBroken(socket::broken(&error)),
            Poll::Pending => return Step::Reading,
        }
        let room = match sink.0.poll_room(cx, want) {
            Poll::Ready(Ok(room)) => room,
            Poll::Ready(Err(error)) => return Step::SinkBroken(sink.sending_failed(error)),
            Poll::Pending => return Step::Blocked,
        };
        match sink.0.send_with(room, |slots| self.poll_read(cx, slots)) {
            Poll::Ready(Ok(0)) => Step::Ended,
            Poll::Ready(Ok(count)) => Step::Moved(count),
            Poll::Ready(Err(error)) => Step::SourceBroken(socket::broken(&error)),
            Poll::Pending => Step::Reading,
        }
    }
}

/// Tunnel to socket: written from where it waits.
impl<'a, 'b> Source<SocketEnd<'a, 'b>> for TunnelEnd<'_> {
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut SocketEnd<'a, 'b>,
        _carry: &mut Carry,
        _want: usize,
        _buffers: &Buffers,
    ) -> Step {
        match self.0.poll_arrived(cx) {
            Poll::Ready(Ok(Arrived::Bytes(_))) => {}
            Poll::Ready(Ok(Arrived::End)) => return Step::Ended,
            Poll::Ready(Err(error)) => return Step::SourceBroken(broken(error)),
            Poll::Pending => return Step::Reading,
        }
        match self.0.take_with(|pieces| sink.poll_write(cx, pieces)) {
            Poll::Ready(Ok(count)) => {
                self.0.release(count);
                Step::Moved(count)
            }
            Poll::Ready(Err(error)) => Step::SinkBroken(socket::broken(&error)),
            Poll::Pending => Step::Blocked,
        }
    }
}

fn broken(error: StreamError) -> Broken {
    match error {
        StreamError::PingTimeout => Broken::Timeout,
        StreamError::Reset(_) | StreamError::GoneAway(_) | StreamError::ConnectionLost | StreamError::Ended => {
            Broken::Reset
        }
    }
}
