//! The seven steps, in their order.

mod control_plane;
mod enrol;
mod leave;
mod plain;
mod policy;
mod proxy;
mod table;
mod who;

pub(crate) use table::{STEPS, Step};
