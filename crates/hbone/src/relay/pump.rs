//! One direction of a relay.
//!
//! ```text
//! Copying --input ended--> Ending --all put--> Done
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::buffers::{Buffers, ReadSize};
use super::end::{Broken, End};

/// Bytes that one direction moves before the other and the rest of the worker get their turn. 1 MiB: about 0.2 ms.
const TURN: usize = 1 << 20;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Waits for input: a failure of the source will show there.
    Reading,
    /// Waits for the sink: somebody must watch the source.
    Blocked,
    /// This direction is complete.
    Done,
    /// The source failed.
    SourceBroken(Broken),
    /// The sink failed.
    SinkBroken(Broken),
}

pub(super) struct Pump<'a> {
    /// Taken from the source, not yet put.
    pending: Bytes,
    ended: bool,
    done: bool,
    size: ReadSize,
    counter: &'a AtomicU64,
}

impl<'a> Pump<'a> {
    pub(super) fn new(counter: &'a AtomicU64) -> Self {
        Self { pending: Bytes::new(), ended: false, done: false, size: ReadSize::default(), counter }
    }

    /// As [`Self::turn`] for a source that has failed: moves what is left of it, but never ends the sink in order.
    pub(super) fn last_turn(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        sink: &mut impl End,
        buffers: &Buffers,
    ) -> Turn {
        if self.done {
            return Turn::Done;
        }
        self.copy(cx, source, sink, buffers, false)
    }

    /// Nobody wants the rest.
    pub(super) fn give_up(&mut self) {
        self.pending = Bytes::new();
        self.done = true;
    }

    /// Moves what can be moved now.
    pub(super) fn turn(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        sink: &mut impl End,
        buffers: &Buffers,
    ) -> Turn {
        if self.done {
            return Turn::Done;
        }
        let turn = self.copy(cx, source, sink, buffers, true);
        match (turn, sink.poll_flush(cx)) {
            (Turn::SinkBroken(Broken::Unwanted), _)
            | (Turn::Reading | Turn::Blocked, Poll::Ready(Err(Broken::Unwanted))) => {
                self.give_up();
                Turn::Done
            }
            (Turn::Reading | Turn::Blocked, Poll::Ready(Err(broken))) => Turn::SinkBroken(broken),
            (turn, _) => turn,
        }
    }

    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        sink: &mut impl End,
        buffers: &Buffers,
        finish: bool,
    ) -> Turn {
        let mut left = TURN;
        loop {
            while !self.pending.is_empty() {
                match sink.poll_put(cx, &mut self.pending) {
                    Poll::Ready(Ok(count)) => {
                        source.put_on(count);
                        self.size.add(count);
                        self.counter.fetch_add(count as u64, Ordering::Relaxed);
                        left = left.saturating_sub(count);
                    }
                    Poll::Ready(Err(broken)) => return Turn::SinkBroken(broken),
                    Poll::Pending => return Turn::Blocked,
                }
            }
            if self.ended {
                self.done = true;
                if !finish {
                    return Turn::Done;
                }
                return sink.finish().map_or_else(Turn::SinkBroken, |()| Turn::Done);
            }
            if left == 0 {
                cx.waker().wake_by_ref();
                return Turn::Blocked;
            }
            match self.take(cx, source, sink, buffers) {
                Ok(()) => {}
                Err(turn) => return turn,
            }
        }
    }

    /// Takes the next piece, but only when the sink has room for it: what cannot be put on stays where it is.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        sink: &mut impl End,
        buffers: &Buffers,
    ) -> Result<(), Turn> {
        match source.poll_input(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(broken)) => return Err(Turn::SourceBroken(broken)),
            Poll::Pending => return Err(Turn::Reading),
        }
        let room = match sink.poll_room(cx, self.size.now()) {
            Poll::Ready(Ok(room)) => room,
            Poll::Ready(Err(broken)) => return Err(Turn::SinkBroken(broken)),
            Poll::Pending => return Err(Turn::Blocked),
        };
        let taken = source.poll_take(cx, room, buffers);
        if !matches!(taken, Poll::Ready(Ok(Some(_)))) {
            sink.release_room();
        }
        match taken {
            Poll::Ready(Ok(Some(data))) => self.pending = data,
            Poll::Ready(Ok(None)) => self.ended = true,
            Poll::Ready(Err(broken)) => return Err(Turn::SourceBroken(broken)),
            Poll::Pending => return Err(Turn::Reading),
        }
        Ok(())
    }
}
