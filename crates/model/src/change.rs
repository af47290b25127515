//! One change to what an agent knows. Batches of these travel from the wire into the mesh index.

use std::fmt;

use serde::Serialize;

use crate::authz::{Policy, PolicyKey};
use crate::service::{Service, ServiceKey};
use crate::workload::{Uid, Workload};

/// Anything that is distributed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::large_enum_variant, reason = "most are workloads; a box would cost one more allocation for each")]
pub enum Resource {
    /// A workload.
    Workload(Workload),
    /// A service.
    Service(Service),
    /// An authorization policy.
    Policy(Policy),
}

/// The key of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKey {
    /// A workload's uid.
    Workload(Uid),
    /// A service's `namespace/hostname`.
    Service(ServiceKey),
    /// A policy's `namespace/name`.
    Policy(PolicyKey),
}

/// Put or take away one resource.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most are workloads; a box would cost one more allocation for each")]
pub enum Change {
    /// The resource is now this.
    Upsert(Resource),
    /// The resource is gone.
    Remove(ResourceKey),
}

impl Resource {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Workload(workload) => ResourceKey::Workload(workload.uid.clone()),
            Self::Service(service) => ResourceKey::Service(service.key.clone()),
            Self::Policy(policy) => ResourceKey::Policy(policy.key.clone()),
        }
    }
}

impl fmt::Display for ResourceKey {
    /// The name of the resource on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(uid) => uid.fmt(f),
            Self::Service(key) => key.fmt(f),
            Self::Policy(key) => key.fmt(f),
        }
    }
}
