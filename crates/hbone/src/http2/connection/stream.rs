//! What the holder of a stream's key does with it: takes what came, says what goes, lets go.

use std::io::IoSlice;
use std::task::{Poll, Waker};

use crate::error::{ResetCode, StreamError};

use super::super::frame::Kind;
use super::super::hpack::HeaderList;
use super::super::streams::{Key, Progress, remember};
use super::{Connection, Role};

/// The window of a stream while the agent as a whole holds too much. 64 KiB: what every peer begins with, and enough to go on.
const TIGHT_WINDOW: u32 = 64 << 10;

/// What there is to take of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// So many bytes, not 0.
    Bytes(usize),
    /// The orderly end.
    End,
}

impl Connection {
    /// The head of the answer, once.
    ///
    /// # Errors
    /// How the stream failed before it.
    pub fn poll_answer(&mut self, key: Key, waker: &Waker) -> Poll<Result<HeaderList, StreamError>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(StreamError::Ended)) };
        if let Some(list) = stream.head.take() {
            return Poll::Ready(Ok(*list));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        remember(&mut stream.reader, waker);
        Poll::Pending
    }

    /// What there is to take, all that came before an error first.
    ///
    /// # Errors
    /// How the stream failed.
    pub fn poll_arrived(&mut self, key: Key, waker: &Waker) -> Poll<Result<Arrived, StreamError>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(StreamError::Ended)) };
        if !stream.queue.is_empty() {
            return Poll::Ready(Ok(Arrived::Bytes(stream.queue.len())));
        }
        if stream.received == Progress::End {
            return Poll::Ready(Ok(Arrived::End));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        remember(&mut stream.reader, waker);
        Poll::Pending
    }

    /// The bytes that wait, as many pieces as there is place for; says how many pieces.
    pub fn arrived<'a>(&'a self, key: Key, slices: &mut [IoSlice<'a>]) -> usize {
        self.streams.get(key).map_or(0, |stream| stream.queue.slices(slices))
    }

    /// The first piece of them.
    #[must_use]
    pub fn first_arrived(&self, key: Key) -> &[u8] {
        self.streams.get(key).map_or(&[], |stream| stream.queue.first())
    }

    /// The first `count` of them are taken. The peer gets their window only by [`Self::release`].
    pub fn take(&mut self, key: Key, count: usize) {
        if let Some(stream) = self.streams.get_mut(key) {
            let count = count.min(stream.queue.len());
            stream.queue.consume(count);
            self.held -= count;
            self.count_held();
            self.give_window_back();
        }
    }

    /// `count` bytes that were taken are passed on: the peer may send as many again, and more if its stream moves.
    pub fn release(&mut self, key: Key, count: usize) {
        let numbers = self.numbers;
        let tight = self.holding.budget().is_tight();
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.receive_window.release(count as u32);
        if !stream.live || stream.received == Progress::End {
            return;
        }
        let size = if tight { stream.receive_size.min(TIGHT_WINDOW) } else { stream.receive_size };
        let Some(mut increment) = stream.receive_window.update(size) else { return };
        let next = size.saturating_mul(2).min(numbers.stream_window);
        let more = next.saturating_sub(size);
        if !tight && more > 0 && self.grown + u64::from(more) <= numbers.grown_windows {
            stream.receive_size = next;
            stream.receive_window.grant(more);
            self.grown += u64::from(more);
            increment += more;
        }
        self.output.frame(Kind::WindowUpdate, 0, key.id(), &increment.to_be_bytes());
        self.wake_mover();
    }

    /// Whether the peer's orderly end has come, even if bytes before it still wait.
    #[must_use]
    pub fn is_receive_complete(&self, key: Key) -> bool {
        self.streams.get(key).is_some_and(|stream| stream.received == Progress::End)
    }

    /// END_STREAM behind everything said so far. Harmless when repeated.
    ///
    /// # Errors
    /// How the stream failed before.
    pub fn finish(&mut self, key: Key) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(key).ok_or(StreamError::Ended)?;
        if stream.sent == Progress::End {
            return Ok(());
        }
        if !stream.live {
            return Err(stream.error.unwrap_or(StreamError::Ended));
        }
        stream.sent = Progress::End;
        let complete = stream.received == Progress::End;
        self.output.end_stream(key.id());
        self.wake_mover();
        if complete {
            self.close(key);
        }
        Ok(())
    }

    /// RST_STREAM, if the stream is still open.
    pub fn reset(&mut self, key: Key, code: ResetCode) {
        self.reset_live(key, code);
        self.wake_mover();
    }

    /// Ready when the stream failed.
    pub fn poll_failed(&mut self, key: Key, waker: &Waker) -> Poll<StreamError> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(StreamError::Ended) };
        if let Some(error) = stream.error {
            return Poll::Ready(error);
        }
        remember(&mut stream.writer, waker);
        Poll::Pending
    }

    /// A mark for what has been said on all streams so far; see [`Self::poll_left`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.output.position()
    }

    /// Ready when everything up to a mark has left, or never will.
    pub fn poll_left(&mut self, position: u64, waker: &Waker) -> Poll<()> {
        if self.over.is_some() || self.output.has_left(position) {
            return Poll::Ready(());
        }
        if !self.drained.iter().any(|(known, by)| *known == position && by.will_wake(waker)) {
            self.drained.push((position, waker.clone()));
        }
        Poll::Pending
    }

    /// The holder of a key is done with it. A stream that is not complete is reset: CANCEL, or NO_ERROR behind a server's complete
    /// answer, which says that the rest of the request is not wanted.
    pub fn let_go(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        let code = match (self.role, stream.sent) {
            (Role::Server, Progress::End) => ResetCode::NO_ERROR,
            _ => ResetCode::CANCEL,
        };
        if stream.live {
            self.reset(key, code);
        }
        self.remove(key);
    }
}
