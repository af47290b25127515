//! Bytes on their way into the connection, and the gauge that tells a stream how many of its own still wait there.
//!
//! The HTTP/2 library queues what it is given and does not say how much of it is left. Each payload therefore carries
//! a ticket that counts itself off when the library drops it, which is when its frame is written. That is what lets
//! [`crate::Tunnel`] gather small writes while earlier ones still queue, and bound a stream's backlog.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

/// Bytes of one stream that were handed over and are not yet written as frames.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    queued: AtomicUsize,
    waker: AtomicWaker,
}

impl Gauge {
    /// Bytes that still wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Ready when fewer than `limit` bytes wait.
    pub(crate) fn poll_below(&self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        if self.queued() < limit {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // Again, for a ticket dropped between the look and the registration.
        if self.queued() < limit { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What the HTTP/2 library is given to send.
#[derive(Debug)]
pub(crate) struct Payload {
    data: Bytes,
    _ticket: Option<Ticket>,
}

impl Payload {
    pub(crate) fn new(data: Bytes, gauge: &Arc<Gauge>) -> Self {
        gauge.queued.fetch_add(data.len(), Ordering::AcqRel);
        let ticket = Ticket { gauge: Arc::clone(gauge), length: data.len() };
        Self { data, _ticket: Some(ticket) }
    }

    /// Only for the frame that carries END_STREAM: peers count empty frames without it against the connection.
    pub(crate) fn empty() -> Self {
        Self { data: Bytes::new(), _ticket: None }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

#[derive(Debug)]
struct Ticket {
    gauge: Arc<Gauge>,
    length: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gauge.queued.fetch_sub(self.length, Ordering::AcqRel);
        self.gauge.waker.wake();
    }
}
