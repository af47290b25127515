//! The Kubernetes API: the only place that knows its client. Line 2 of the layers.
//!
//! ```text
//! client (kubeconfig, or the pod's own account) -> feed (watches) -> manifest's Live -> Outcome { objects, findings }
//!                                                 review (who holds a token), captured (what is written to pods)
//! cluster (what `weft` does as the user), forward (a port of a pod, through the API server)
//! files (a Secret and a ConfigMap that replicas share), rotation (what the Secret of the root says of itself)
//! lease (who leads; pure) -> leader; replicas (what each of them says to it) -> conditions (what is written to policies), events
//! ```
//!
//! What comes out of [`feed`] is what comes out of a directory of YAML: whoever reads it does not know where it is from.

pub mod captured;
pub mod client;
pub mod cluster;
pub mod conditions;
pub mod events;
pub mod feed;
pub mod files;
#[cfg(feature = "forward")]
pub mod forward;
pub mod leader;
pub mod lease;
pub mod replicas;
pub mod review;
pub mod rotation;
pub mod scope;
mod watches;

pub use captured::{CapturedWriter, Mark, MarkError};
pub use client::{Client, ClientError, connect, connect_in, has_kubeconfig};
pub use cluster::{Cluster, ClusterError};
pub use conditions::{PolicyConditions, PolicyLife, StatusError, Wanted};
pub use events::{About, EventError, Events};
pub use feed::Feed;
#[cfg(feature = "forward")]
pub use forward::{Forward, ForwardError};
pub use leader::{Candidate, Leadership};
pub use replicas::{Replica, Replicas, SayError};
pub use review::{NodeIdentity, ReviewError, review};
pub use scope::Scope;
