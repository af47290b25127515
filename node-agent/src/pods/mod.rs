//! The pods of this node: what is wanted, and what has to be done about it. Pure values.

pub mod roster;
mod spec;
mod uncaptured;

pub use spec::{PodSpec, PodUid};
pub use uncaptured::{Uncaptured, UncapturedReason};
