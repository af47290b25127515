//! A tunnel as an end of a relay.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::buffers::Buffers;
use super::end::{Broken, End};
use crate::error::{ResetCode, StreamError};
use crate::tunnel::Tunnel;

pub(super) struct TunnelEnd(pub(super) Tunnel);

impl TunnelEnd {
    /// RST_STREAM NO_ERROR behind a complete answer only ends our sending; everything else, and NO_ERROR without END_STREAM,
    /// means that something is missing.
    fn sending_failed(&mut self, cx: &mut Context<'_>, error: StreamError) -> Broken {
        self.0.soak(cx);
        if error == StreamError::Reset(ResetCode::NO_ERROR) && self.0.is_receive_complete() {
            return Broken::Unwanted;
        }
        broken(error)
    }
}

impl End for TunnelEnd {
    fn poll_input(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        _buffers: &Buffers,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        self.0.poll_receive(cx, limit).map_err(broken)
    }

    fn put_on(&mut self, count: usize) {
        self.0.release(count);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Broken>> {
        let room = ready!(self.0.poll_room(cx, want));
        Poll::Ready(room.map_err(|error| self.sending_failed(cx, error)))
    }

    fn release_room(&mut self) {
        self.0.release_room();
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, Broken>> {
        // Never more than the room that the pump asked for, so all of it goes.
        let count = data.len();
        let sent = self.0.send(std::mem::take(data));
        Poll::Ready(sent.map(|()| count).map_err(|error| self.sending_failed(cx, error)))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let flushed = ready!(self.0.poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.sending_failed(cx, error)))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_drained(cx)
    }

    fn finish(&mut self) -> Result<(), Broken> {
        self.0.finish().map_err(broken)
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.0.soak(cx);
        let error = ready!(self.0.poll_failed(cx));
        Poll::Ready(self.sending_failed(cx, error))
    }

    fn close_orderly(&mut self) {}

    fn reset(&mut self) {
        self.0.reset(ResetCode::CONNECT_ERROR);
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
