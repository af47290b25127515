//! The vocabulary and the rules of the mesh: identities, workloads, services, policies, verdicts, balancing.
//!
//! Everything here is a pure function over values: no tokio, no protobuf, no clock, no socket. The control plane
//! translates *into* these types, the wire carries them, and the node agent decides *from* them, so most of what the
//! mesh means is tested here as tables, in milliseconds.
//!
//! | module | gives |
//! |---|---|
//! | [`spiffe`], [`address`], [`service_key`] | identities, addresses and keys, each a type of its own |
//! | [`workload`], [`service`], [`gateway`] | what the control plane tells of pods, services and waypoints |
//! | [`authz`] | policies, and what they mean for one connection |
//! | [`mesh`], [`change`] | everything that an agent knows as one value: look-ups, choice of an endpoint; what changes it |
//! | [`ejection`] | endpoints that are left out because connections to them failed |
//! | [`enrolment`] | which pods are in the mesh, and how strictly |
//! | [`reason`], [`view`] | why something was refused; the rows that `weft` shows |

pub mod address;
pub mod authz;
pub mod change;
pub mod ejection;
pub mod enrolment;
pub mod gateway;
pub mod mesh;
pub mod reason;
pub mod service;
pub mod service_key;
pub mod spiffe;
pub mod view;
pub mod workload;

pub use address::{NetworkAddress, NextHop, OriginalDst};
pub use authz::{Connection, Policy, PolicyKey, Verdict};
pub use change::{Change, Resource, ResourceKey};
pub use mesh::Mesh;
pub use reason::Reason;
pub use service::{Service, ServiceKey};
pub use spiffe::SpiffeId;
pub use workload::{Uid, Workload};
