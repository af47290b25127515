//! What a relay needs of an end: to move bytes from it to the other, and to see either fail.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::buffers::Buffers;

/// Why an end is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Reset, or lost in another way.
    Reset,
    /// It stopped answering.
    Timeout,
    /// It wants no more bytes; what it had to say is complete. Only of a sink.
    Unwanted,
}

/// What one attempt to move bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many went from the source into the sink.
    Moved(usize),
    /// The source has ended in order, and all of it is in the sink. Not to be tried again.
    Ended,
    /// Waits for the source.
    Reading,
    /// Waits for the sink.
    Blocked,
    /// The source failed.
    SourceBroken(Broken),
    /// The sink failed.
    SinkBroken(Broken),
}

/// What a sink took less of than it promised. In a box, since few connections have any, and each is never empty.
pub(super) type Carry = Option<Box<Bytes>>;

/// One end of a relay. All calls come from one task; "pending" means that the task is woken.
pub(super) trait End {
    /// Ready when everything that was put has left this process.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The orderly end of putting.
    fn finish(&mut self) -> Result<(), Broken>;

    /// While nobody takes from this end: ready when it fails.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;

    /// Somebody takes from this end again: what [`Self::poll_watch`] needed may go.
    fn stop_watching(&mut self);

    /// Both directions ended in order: what follows is an ordinary close.
    fn close_orderly(&mut self);

    /// Ends both directions at once, so that the other side sees a reset.
    fn reset(&mut self);
}

/// An end whose bytes can go to an end of kind `Sink`.
pub(super) trait Source<Sink> {
    /// Moves what is there, about `want` bytes at most, but only as much as the sink has room for: the rest stays where it is. What a sink
    /// took less of than it promised is in `carry`, and goes first the next time.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Sink,
        carry: &mut Carry,
        want: usize,
        buffers: &Buffers,
    ) -> Step;
}
