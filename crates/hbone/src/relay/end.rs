//! What the pump needs of an end: to take bytes from it, to put bytes into it, to see it fail.

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
    /// It wants no more bytes; what it had to say is complete. Only when putting.
    Unwanted,
}

/// One end of a relay. All calls come from one task; "pending" means that the task is woken.
pub(super) trait End {
    /// Ready when there may be something to take.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// The next bytes, `None` at the orderly end. Not to be called again after that.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        buffers: &Buffers,
    ) -> Poll<Result<Option<Bytes>, Broken>>;

    /// `count` of the bytes taken have been put into the other end.
    fn put_on(&mut self, count: usize);

    /// How many bytes this end would take now, at most `want`.
    fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Broken>>;

    /// The room that was given is not used now.
    fn release_room(&mut self);

    /// Puts some of `data` and removes it there; says how much.
    fn poll_put(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, Broken>>;

    /// Sends on what was put and may wait. Need not be ready for more puts.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// Ready when everything that was put has left this process.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The orderly end of putting.
    fn finish(&mut self) -> Result<(), Broken>;

    /// While nobody takes from this end: keeps it from harming others, and is ready when it fails.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;

    /// Both directions ended in order: what follows is an ordinary close.
    fn close_orderly(&mut self);

    /// Ends both directions at once, so that the other side sees a reset.
    fn reset(&mut self);
}
