//! The sending half of a tunnel: room, gathering of small writes, half-close, reset.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::error::{ResetCode, StreamError};
use crate::payload::{Gauge, Payload};
use crate::status::ConnectionStatus;

/// Bytes of one stream that may wait for the connection's transport before its source is no longer read. 256 KiB
/// (`datapath.md` section 8): enough to keep a tunnel busy for a turn, little enough to be fair among its streams.
pub const BACKLOG_LIMIT: usize = 256 << 10;

/// A write below this joins earlier ones while those still queue. 4 KiB: copying it costs less than a frame of its own.
const SMALL_WRITE: usize = 4 << 10;

/// Gathered bytes that are sent even though earlier ones still queue: one frame of the default size (RFC 9113 section 4.2).
const GATHER_LIMIT: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Finished,
    Reset,
}

pub(super) struct Sending {
    stream: h2::SendStream<Payload>,
    status: Arc<ConnectionStatus>,
    gauge: Arc<Gauge>,
    gathered: BytesMut,
    state: State,
}

impl Sending {
    pub(super) fn new(stream: h2::SendStream<Payload>, status: Arc<ConnectionStatus>) -> Self {
        Self { stream, status, gauge: Arc::default(), gathered: BytesMut::new(), state: State::Open }
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, StreamError>> {
        self.check_open()?;
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        if self.gauge.poll_below(cx, BACKLOG_LIMIT).is_pending() {
            // Nothing is woken by a reset of the stream but who asks for it.
            return match self.poll_failed(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
        }
        // What is gathered was promised its room already.
        self.stream.reserve_capacity(want + self.gathered.len());
        loop {
            let room = self.stream.capacity().saturating_sub(self.gathered.len());
            if room > 0 {
                return Poll::Ready(Ok(room.min(want)));
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.status.stream_error(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(self.failure(cx))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(super) fn release_room(&mut self) {
        self.stream.reserve_capacity(self.gathered.len());
    }

    pub(super) fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.check_open()?;
        if data.is_empty() {
            return Ok(());
        }
        if data.len() < SMALL_WRITE && (self.gauge.queued() > 0 || !self.gathered.is_empty()) {
            self.gathered.extend_from_slice(&data);
            if self.gathered.len() >= GATHER_LIMIT {
                self.send_gathered(false)?;
            }
        } else {
            self.send_gathered(false)?;
            self.hand_over(data, false)?;
        }
        self.release_room();
        Ok(())
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.gauge.poll_below(cx, 1).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.send_gathered(false))
    }

    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state != State::Reset && !self.gathered.is_empty() && self.send_gathered(false).is_err() {
            return Poll::Ready(());
        }
        self.gauge.poll_below(cx, 1)
    }

    pub(super) fn finish(&mut self) -> Result<(), StreamError> {
        match self.state {
            State::Finished => return Ok(()),
            State::Reset => return Err(StreamError::Ended),
            State::Open => {}
        }
        self.state = State::Finished;
        if self.gathered.is_empty() { self.hand_over(Bytes::new(), true) } else { self.send_gathered(true) }
    }

    pub(super) fn reset(&mut self, code: ResetCode) {
        self.state = State::Reset;
        self.gathered = BytesMut::new();
        self.stream.send_reset(code.0.into());
    }

    pub(super) fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match self.stream.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(StreamError::Reset(ResetCode(reason.into()))),
            Poll::Ready(Err(error)) => Poll::Ready(self.status.stream_error(&error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Why the library no longer lets this stream send.
    fn failure(&mut self, cx: &mut Context<'_>) -> StreamError {
        match self.poll_failed(cx) {
            Poll::Ready(error) => error,
            Poll::Pending => self.status.lost(),
        }
    }

    fn check_open(&self) -> Result<(), StreamError> {
        if self.state == State::Open { Ok(()) } else { Err(StreamError::Ended) }
    }

    fn send_gathered(&mut self, last: bool) -> Result<(), StreamError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.gathered).freeze();
        self.hand_over(data, last)
    }

    fn hand_over(&mut self, data: Bytes, last: bool) -> Result<(), StreamError> {
        let payload = if data.is_empty() { Payload::empty() } else { Payload::new(data, &self.gauge) };
        match self.stream.send_data(payload, last) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure(&mut Context::from_waker(std::task::Waker::noop()))),
        }
    }
}
