//! The pods of this node: what is wanted, and (in `roster`) what has to be done about it. Pure values.

mod spec;

pub use spec::{PodSpec, PodUid};
