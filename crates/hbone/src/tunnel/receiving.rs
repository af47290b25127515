//! The receiving half of a tunnel: takes frames out of the connection at once and keeps them until they are wanted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::error::StreamError;
use crate::status::ConnectionStatus;

/// A frame below this is copied behind the one before it when both must wait. 4 KiB: a kept frame holds its whole read buffer,
/// and a queue of 1-byte frames would cost 40 times its bytes.
const SMALL_FRAME: usize = 4 << 10;

/// Entries that an empty queue may keep its memory for.
const KEPT_ENTRIES: usize = 16;

pub(super) struct Receiving {
    stream: h2::RecvStream,
    status: Arc<ConnectionStatus>,
    /// What arrived and was not taken, in order; `tail` comes after all of `chunks`.
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    /// What comes after the last byte.
    end: Option<Result<(), StreamError>>,
}

impl Receiving {
    pub(super) fn new(stream: h2::RecvStream, status: Arc<ConnectionStatus>) -> Self {
        Self { stream, status, chunks: VecDeque::new(), tail: BytesMut::new(), end: None }
    }

    /// Empties the connection's queue of this stream into ours.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(frame))) => self.keep(frame),
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(self.status.stream_error(&error))),
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Pending => return,
            }
        }
    }

    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.fill(cx);
        if let Some(data) = self.next_chunk(limit) {
            return Poll::Ready(Ok(Some(data)));
        }
        match self.end {
            None => Poll::Pending,
            Some(Ok(())) => Poll::Ready(Ok(None)),
            Some(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    pub(super) fn release(&mut self, count: usize) {
        // Fails only for more than was received, which our callers cannot have, or on a stream that is gone.
        let _ = self.stream.flow_control().release_capacity(count);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.end == Some(Ok(()))
    }

    fn keep(&mut self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        let waiting = !self.chunks.is_empty() || !self.tail.is_empty();
        if waiting && frame.len() < SMALL_FRAME {
            self.tail.extend_from_slice(&frame);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
        self.chunks.push_back(frame);
    }

    fn next_chunk(&mut self, limit: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            if self.tail.is_empty() {
                return None;
            }
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
        let first = self.chunks.front_mut()?;
        if first.len() > limit {
            return Some(first.split_to(limit));
        }
        let whole = self.chunks.pop_front();
        if self.chunks.is_empty() && self.chunks.capacity() > KEPT_ENTRIES {
            self.chunks = VecDeque::new();
        }
        whole
    }
}
