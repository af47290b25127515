//! Saying bytes: who may say how many now, in what order, and how they get into the output.
//!
//! Three things bound a sender: its stream's window, the connection's window, and the output, which holds [`BACKLOG_LIMIT`] bytes at
//! most. The last two are shared, so whoever finds them used up stands in line; whoever comes while there is a line goes to its end.

use std::io::{self, IoSliceMut};
use std::task::{Poll, Waker};

use crate::error::{ResetCode, StreamError};

use super::super::frame::LARGEST_31;
use super::super::output::MOST_DATA;
use super::super::streams::{Key, Progress, remember};
use super::Connection;

/// Bytes that may wait for the transport before its senders' sources are no longer read. 256 KiB: enough to keep
/// a connection busy for a turn, little enough to be fair among its streams.
pub const BACKLOG_LIMIT: usize = 256 << 10;

/// Room below this is none: frames of a few bytes cost more than they carry.
const SMALLEST_ROOM: usize = 4 << 10;

/// What one stream gets at a time while others stand in line.
const FAIR_SHARE: usize = 64 << 10;

impl Connection {
    /// Ready when a stream can be opened now.
    ///
    /// # Errors
    /// No stream can be opened any more; nothing was processed.
    pub fn poll_open(&mut self, waker: &Waker) -> Poll<Result<(), StreamError>> {
        if let Some(error) = self.open_error() {
            return Poll::Ready(Err(error));
        }
        if self.streams.live() < self.peer_max_streams {
            return Poll::Ready(Ok(()));
        }
        if !self.openers.iter().any(|known| known.will_wake(waker)) {
            self.openers.push(waker.clone());
        }
        Poll::Pending
    }

    /// Why no stream can be opened any more.
    #[must_use]
    pub fn open_error(&self) -> Option<StreamError> {
        let unprocessed = StreamError::GoneAway(self.going_away.unwrap_or(ResetCode::NO_ERROR));
        let closed = self.over.is_some() || self.going_away.is_some() || self.said_goodbye;
        (closed || self.stream_id > LARGEST_31 - 2).then_some(unprocessed)
    }

    /// Streams that the peer lets us have at a time, as far as it has said.
    #[must_use]
    pub fn stream_limit(&self) -> usize {
        self.peer_max_streams
    }

    /// How many bytes, at most `want`, may be said now; [`Self::send`] or [`Self::fill`] must follow without a pause.
    ///
    /// # Errors
    /// How the stream failed; [`StreamError::Ended`] behind [`Self::finish`].
    pub fn poll_room(&mut self, key: Key, waker: &Waker, want: usize) -> Poll<Result<usize, StreamError>> {
        let shared = self.shared_room();
        let nobody_waits = self.line.is_empty();
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(StreamError::Ended)) };
        if stream.sent == Progress::End {
            return Poll::Ready(Err(StreamError::Ended));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        let own = stream.send_window.room();
        if own == 0 {
            remember(&mut stream.writer, waker);
            return Poll::Pending;
        }
        if shared == 0 || !(nobody_waits || stream.called) {
            remember(&mut stream.writer, waker);
            stream.called = false;
            if !stream.in_line {
                stream.in_line = true;
                self.line.push_back(key);
            }
            return Poll::Pending;
        }
        stream.called = false;
        let share = if nobody_waits { shared } else { shared.min(FAIR_SHARE) };
        Poll::Ready(Ok(want.min(own).min(share)))
    }

    /// Says `data`, no more than [`Self::poll_room`] gave.
    pub fn send(&mut self, key: Key, data: &[u8]) {
        let piece = self.piece();
        if let Some(stream) = self.streams.get_mut(key) {
            stream.send_window.take(data.len());
            self.send_window.take(data.len());
            self.output.data(key.id(), data, piece);
            self.limits.tiny_updates.earn(1);
            self.wake_mover();
        }
    }

    /// Says what `read` reads into place, no more than [`Self::poll_room`] gave.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn fill(
        &mut self,
        key: Key,
        room: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let piece = self.piece();
        let filled = self.output.fill(key.id(), room, piece, read);
        if let Poll::Ready(Ok(count @ 1..)) = filled
            && let Some(stream) = self.streams.get_mut(key)
        {
            stream.send_window.take(count);
            self.send_window.take(count);
            self.limits.tiny_updates.earn(1);
            self.wake_mover();
        }
        filled
    }

    fn piece(&self) -> usize {
        MOST_DATA.min(self.peer_max_frame)
    }

    /// What all streams together may say now.
    fn shared_room(&self) -> usize {
        let backlog = BACKLOG_LIMIT.saturating_sub(self.output.len());
        if backlog < SMALLEST_ROOM { 0 } else { backlog.min(self.send_window.room()) }
    }

    /// Calls as many from the line as there is room for; all of them when nothing waits any more, since then nothing else will.
    pub(super) fn call_line(&mut self) {
        let room = self.shared_room();
        if self.line.is_empty() || room == 0 || self.output.len() > BACKLOG_LIMIT / 2 {
            return;
        }
        let count =
            if self.output.is_empty() { self.line.len() } else { self.line.len().min(room.div_ceil(MOST_DATA)) };
        for key in self.line.drain(..count) {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.in_line = false;
                stream.called = true;
                stream.wake_writer();
            }
        }
    }
}
