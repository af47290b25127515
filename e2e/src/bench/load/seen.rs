//! What all the loops of a server count together.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

/// What the server has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) bytes: AtomicU64,
    pub(super) open: AtomicI64,
    pub(super) accepted: AtomicU64,
    pub(super) over: AtomicBool,
}
