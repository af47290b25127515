//! Everything that crosses a process border between the control plane and the nodes.
//!
//! Line 1 of the layers, the home of prost and tonic. `model` values go in and come out; what is in between, message
//! numbers, versions, nonces and retries, stays here. It knows nothing about TLS: connections are handed in.
//!
//! | module | gives |
//! |---|---|
//! | [`convert`] | `model` resources to bytes and back, one file per kind |
//! | [`delta`] | the delta discovery protocol: both ends as state machines without I/O, and the client's stream |
//! | [`connect`] | how a client gets its connection, and gRPC over it |
//! | [`ca`] | asks the certificate authority for a certificate |
//! | [`report`] | tells the control plane which pods are captured |
//! | [`refusal`] | reasons of refusal across gRPC |
//! | [`proto`] | the messages themselves, for who serves them |

pub mod ca;
pub mod connect;
pub mod convert;
pub mod delta;
pub mod proto;
pub mod refusal;
pub mod report;
