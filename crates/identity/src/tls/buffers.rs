//! Large buffers, lent for one turn: a connection that rests owns none.

use std::cell::RefCell;

use super::records::sealed_room;

/// Application bytes that are sealed, or opened, in one turn. 256 KiB: 16 records, where the gain of larger system calls ends
/// (`performance.md` section 3, I/O size).
pub(super) const TURN: usize = 256 << 10;

/// Bytes of one lent buffer: a turn, sealed.
pub(super) const LENT: usize = sealed_room(TURN);

/// Buffers that a thread keeps. One is used for reading and one for writing at a time; more are out only while sockets are full.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`LENT`] bytes with anything in it. Touched pages only count: an unused end costs nothing.
pub(super) fn lend() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LENT])
}

/// Takes a lent buffer back. Any other is dropped.
pub(super) fn give_back(buffer: Vec<u8>) {
    if buffer.len() == LENT {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}
