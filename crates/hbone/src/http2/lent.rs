//! Buffers of this thread that connections and streams borrow while they have bytes, so that idle ones own none.
//!
//! Everything of a connection lives on one thread (`docs/architecture.md`), and so do its buffers.

use std::cell::RefCell;

/// Bytes of a block of received data. 64 KiB: four TLS records, and few entries in a `writev`.
pub(super) const BLOCK: usize = 64 << 10;

/// Blocks that wait for their next user. 32, which is 2 MiB per worker: what one bulk stream has in use.
const BLOCKS_KEPT: usize = 32;

/// Output buffers that wait for their next user: as many connections are busy in one turn.
const OUTPUTS_KEPT: usize = 4;

/// A larger output buffer is not kept. 512 KiB: the bound of what streams may put there, and some.
const LARGEST_KEPT: usize = 512 << 10;

thread_local! {
    static BLOCKS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`BLOCK`] bytes.
pub(super) fn block() -> Vec<u8> {
    BLOCKS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BLOCK))
}

/// Gives a buffer back; only those of [`block`] are kept.
pub(super) fn return_block(mut block: Vec<u8>) {
    if block.capacity() == BLOCK {
        block.clear();
        BLOCKS.with_borrow_mut(|kept| {
            if kept.len() < BLOCKS_KEPT {
                kept.push(block)
            }
        });
    }
}

/// An initialised buffer of some length.
pub(super) fn output() -> Vec<u8> {
    OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives it back as it is.
pub(super) fn return_output(output: Vec<u8>) {
    if !output.is_empty() && output.len() <= LARGEST_KEPT {
        OUTPUTS.with_borrow_mut(|kept| {
            if kept.len() < OUTPUTS_KEPT {
                kept.push(output)
            }
        });
    }
}
