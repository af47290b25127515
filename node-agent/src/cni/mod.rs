//! The CNI plugin `weft-cni`, which holds a new pod back until it is captured, and what puts it into a node's CNI configuration.
//!
//! | module | does |
//! |---|---|
//! | [`talk`] | what plugin and capture half say to each other |
//! | [`plugin`] | what a call of the container runtime asks for, and the answer (pure) |
//! | [`ask`] | the plugin's end of the socket |
//! | [`conflist`] | our entry in and out of a node's configuration (pure) |
//! | [`install`] | keeps it there, or takes it away |
//!
//! The other end of the socket is in `capture/cni.rs`; what it decides in `capture/told.rs`.

pub mod ask;
pub mod conflist;
pub mod install;
pub mod plugin;
pub mod talk;
