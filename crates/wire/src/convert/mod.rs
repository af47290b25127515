//! Model resources to wire messages and back, both directions of one kind in one file.
//!
//! What cannot be read is an error that names the field, and rejects that one resource only. Encoding is canonical: the
//! same value always gives the same bytes (defaults are left out, maps are sorted), so versions can be hashes of them.

mod error;
mod field;
mod gateway;
mod policy;
mod resource;
mod service;
#[cfg(test)]
mod tests;
mod workload;

pub use error::DecodeError;
pub use policy::{policy_from_wire, policy_stand_in, policy_to_wire};
pub use resource::{Encoded, ResourceType, decode, encode};
pub use service::{service_from_wire, service_to_wire};
pub use workload::{workload_from_wire, workload_to_wire};
