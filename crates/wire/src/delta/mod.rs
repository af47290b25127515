//! The delta discovery protocol (incremental ADS of xDS, `proto/envoy/discovery.proto`).
//!
//! [`Subscriber`] is the client and [`Session`] the server of one resource type on one stream. Both are state machines
//! without I/O: messages in, messages out, so that every loss and reconnect can be tested in memory. [`Client`] is all
//! subscribers of a stream with what is doubted of their answers, without I/O likewise; [`DeltaStream`] drives it over gRPC.
//!
//! ```text
//!   client                                              server
//!   open() ------- node, names, versions held --------> request()
//!   receive() <--- resources, removals, nonce --------- respond(snapshot)   at most one unanswered per type
//!   (apply) ------ nonce, error_detail of bad ones ---> request()
//! ```

mod client;
mod doubt;
mod error_detail;
mod session;
#[cfg(test)]
mod session_tests;
mod snapshot;
mod status;
mod stream;
#[cfg(test)]
mod stream_tests;
mod subscriber;
#[cfg(test)]
mod together_tests;
mod words;

pub use client::{Client, Due, ForeignType, Taken};
pub use doubt::CONFIRMATION;
pub use session::{Acknowledged, Limits, Refused, Session, SessionStatus};
pub use snapshot::Snapshot;
pub use status::{Rejected, StreamStatus, TypeStatus};
pub use stream::{BACKOFF, Batch, DeltaStream, NodeIdentity, StreamSettings};
pub use subscriber::{Received, Rejection, Subscriber, Subscription};
pub use words::{MORE_TO_COME, SYNCED, WILDCARD};
