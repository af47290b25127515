//! The read buffer of a worker, lent for the time of one system call.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// What was read is copied out of the buffer up to this size, and split off it above. 16 KiB: copying that is cheaper than
/// a new buffer, and a small piece that waits in a tunnel must not hold 256 KiB.
const COPY_LIMIT: usize = 16 << 10;

/// The read buffer of one worker; at rest at most one block of 256 KiB. Clones share it. Cheap when all users are on one thread.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<BytesMut>>);

impl Buffers {
    /// One for a worker; allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads once, at most `limit` bytes; empty at the end of the stream.
    pub(super) fn poll_read<R>(
        &self,
        cx: &mut Context<'_>,
        source: &mut R,
        limit: usize,
    ) -> Poll<std::io::Result<Bytes>>
    where
        R: AsyncRead + Unpin,
    {
        // Never held over an await, so waited for only when relays of several threads share it.
        let mut scratch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        scratch.clear();
        scratch.reserve(limit);
        let count = ready!(poll_read_buf(Pin::new(source), cx, &mut (&mut *scratch).limit(limit)))?;
        if count <= COPY_LIMIT {
            return Poll::Ready(Ok(Bytes::copy_from_slice(&scratch[..count])));
        }
        Poll::Ready(Ok(scratch.split_to(count).freeze()))
    }
}

/// How much to ask for in one read: grows with what a connection has moved, so that a short one does not hold up others and a
/// bulk one needs few calls.
#[derive(Debug, Default)]
pub(super) struct ReadSize {
    moved: u64,
}

impl ReadSize {
    /// 8 KiB for the first 64 KiB, 64 KiB for the first MiB, then 256 KiB (`datapath.md` section 3: copies of 256 KiB equal splice).
    pub(super) fn now(&self) -> usize {
        match self.moved {
            0..0x1_0000 => 8 << 10,
            0x1_0000..0x10_0000 => 64 << 10,
            _ => 256 << 10,
        }
    }

    pub(super) fn add(&mut self, count: usize) {
        self.moved = self.moved.saturating_add(count as u64);
    }
}
