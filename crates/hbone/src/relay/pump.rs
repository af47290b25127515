//! One direction of a relay.
//!
//! ```text
//! Copying --input ended--> Done
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use super::buffers::{Buffers, ReadSize};
use super::end::{Broken, Carry, End, Source, Step};

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
    /// Taken from the source, not yet in the sink.
    carry: Carry,
    done: bool,
    size: ReadSize,
    counter: &'a AtomicU64,
}

impl<'a> Pump<'a> {
    pub(super) fn new(counter: &'a AtomicU64) -> Self {
        Self { carry: None, done: false, size: ReadSize::default(), counter }
    }

    /// Bytes so far.
    pub(super) fn moved(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Nobody wants the rest.
    pub(super) fn give_up(&mut self) {
        self.carry = None;
        self.done = true;
    }

    /// Moves what can be moved now.
    pub(super) fn turn<K: End>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source<K>,
        sink: &mut K,
        buffers: &Buffers,
    ) -> Turn {
        let was_done = self.done;
        let turn = match self.last_turn(cx, source, sink, buffers) {
            Turn::Done if !was_done => sink.finish().map_or_else(Turn::SinkBroken, |()| Turn::Done),
            turn => turn,
        };
        if turn == Turn::SinkBroken(Broken::Unwanted) {
            self.give_up();
            return Turn::Done;
        }
        turn
    }

    /// As [`Self::turn`] for a source that has failed: moves what is left of it, but never ends the sink in order.
    pub(super) fn last_turn<K: End>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source<K>,
        sink: &mut K,
        buffers: &Buffers,
    ) -> Turn {
        let mut left = TURN;
        while !self.done {
            match source.step(cx, sink, &mut self.carry, self.size.now(), buffers) {
                Step::Moved(count) => {
                    self.size.add(count);
                    self.counter.fetch_add(count as u64, Ordering::Relaxed);
                    left = left.saturating_sub(count);
                }
                Step::Ended => self.done = true,
                Step::Reading => return Turn::Reading,
                Step::Blocked => return Turn::Blocked,
                Step::SourceBroken(broken) => return Turn::SourceBroken(broken),
                Step::SinkBroken(broken) => return Turn::SinkBroken(broken),
            }
            if left == 0 && !self.done {
                cx.waker().wake_by_ref();
                return Turn::Blocked;
            }
        }
        Turn::Done
    }
}
