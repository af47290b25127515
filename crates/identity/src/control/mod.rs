//! TLS between the agents and the control plane, in the shapes that tonic takes: a connector for the client's `Endpoint`, a
//! stream of accepted connections for the server.
//!
//! The server shows a certificate for its name; the client shows none and authenticates by token in the call
//! (as ztunnel), so a stock istiod is served as well as our own control plane.

mod client;
mod server;
mod serving;
mod trust;

pub use client::{
    ControlConnector, ControlError, ControlRoots, ControlSecurity, ControlStream, Resolve, Resolving, system_resolver,
};
pub use server::{Incoming, ServerConnection};
pub use serving::{ServingError, ServingSource};
pub use trust::LearntRoots;
