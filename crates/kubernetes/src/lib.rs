//! The Kubernetes API: the only place that knows its client. Line 2 of the layers.
//!
//! ```text
//! client (kubeconfig, or the pod's own account) -> feed (watches) -> manifest's Live -> Outcome { objects, findings }
//!                                                 review (who holds a token), captured (what is written to pods)
//! ```
//!
//! What comes out of [`feed`] is what comes out of a directory of YAML: whoever reads it does not know where it is from.

pub mod captured;
pub mod client;
pub mod cluster;
pub mod feed;
pub mod files;
pub mod review;
pub mod scope;
mod watches;

pub use captured::{CapturedWriter, Mark, MarkError};
pub use client::{Client, ClientError, connect};
pub use cluster::{Cluster, ClusterError};
pub use feed::Feed;
pub use review::{NodeIdentity, ReviewError, review};
pub use scope::Scope;
