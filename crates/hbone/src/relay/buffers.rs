//! The read buffer of a worker, lent for the time of one turn between two sockets.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

/// The read buffer of one worker; at rest at most one block of 256 KiB. Clones share it. (What goes into a tunnel is read straight into the
/// frames that go out, and needs none.)
#[derive(Debug, Clone, Default)]
pub struct Buffers(Rc<RefCell<Vec<u8>>>);

impl Buffers {
    /// One for a worker; allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An initialised place for `size` bytes. Nobody else may ask before it is dropped.
    pub(super) fn scratch(&self, size: usize) -> RefMut<'_, [u8]> {
        RefMut::map(self.0.borrow_mut(), |scratch| {
            if scratch.len() < size {
                scratch.resize(size, 0);
            }
            &mut scratch[..size]
        })
    }
}

/// How much to ask for in one read: grows with what a connection has moved, so that a short one does not hold up others and a
/// bulk one needs few calls.
#[derive(Debug, Default)]
pub(super) struct ReadSize {
    moved: u32,
}

impl ReadSize {
    /// 8 KiB for the first 64 KiB, 64 KiB for the first MiB, then 256 KiB (measured: copies of 256 KiB are as fast as splice).
    pub(super) fn now(&self) -> usize {
        match self.moved {
            0..0x1_0000 => 8 << 10,
            0x1_0000..0x10_0000 => 64 << 10,
            _ => 256 << 10,
        }
    }

    pub(super) fn add(&mut self, count: usize) {
        self.moved = self.moved.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }
}
