//! A whole resource as it travels: type, name, bytes, version.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};
use weft_model::{Resource, ResourceKey};

use super::error::DecodeError;
use super::policy::{policy_from_wire, policy_to_wire};
use super::service::{service_from_wire, service_to_wire};
use super::workload::{workload_from_wire, workload_to_wire};
use crate::proto::istio::workload;

/// The types of resources that are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ResourceType {
    /// Workloads and services.
    Address,
    /// Policies.
    Authorization,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// Its name on the wire, a type URL of xDS.
    #[must_use]
    pub const fn url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }

    /// The type of that name.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// The type that a resource is distributed as.
    #[must_use]
    pub const fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Workload(_) | Resource::Service(_) => Self::Address,
            Resource::Policy(_) => Self::Authorization,
        }
    }

    /// The type that a key is distributed as.
    #[must_use]
    pub const fn of_key(key: &ResourceKey) -> Self {
        match key {
            ResourceKey::Workload(_) | ResourceKey::Service(_) => Self::Address,
            ResourceKey::Policy(_) => Self::Authorization,
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "Address",
            Self::Authorization => "Authorization",
        })
    }
}

/// A resource ready to be sent. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// xxh3-64 of the bytes, as 16 hexadecimal digits: the same content has the same version after any restart, so that
    /// nothing is sent twice, and no counter must be kept.
    pub version: Arc<str>,
    /// The message.
    pub bytes: Bytes,
}

impl Encoded {
    /// Of bytes that are encoded already.
    #[must_use]
    pub fn of(bytes: Bytes) -> Self {
        let version = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)).into();
        Self { version, bytes }
    }
}

/// A resource as bytes and version. Its type is [`ResourceType::of`], its name the text of its key.
#[must_use]
pub fn encode(resource: &Resource) -> Encoded {
    let address = |content| workload::Address { r#type: Some(content) }.encode_to_vec();
    let bytes = match resource {
        Resource::Workload(value) => address(workload::address::Type::Workload(workload_to_wire(value))),
        Resource::Service(value) => address(workload::address::Type::Service(service_to_wire(value))),
        Resource::Policy(value) => policy_to_wire(value).encode_to_vec(),
    };
    Encoded::of(bytes.into())
}

/// The resource of that type in the bytes.
///
/// # Errors
/// Says what is wrong with it, naming the field.
pub fn decode(kind: ResourceType, bytes: &[u8]) -> Result<Resource, DecodeError> {
    match kind {
        ResourceType::Address => {
            let message: workload::Address = message("istio.workload.Address", bytes)?;
            match message.r#type.ok_or(DecodeError::Unset { field: "type" })? {
                workload::address::Type::Workload(value) => workload_from_wire(value).map(Resource::Workload),
                workload::address::Type::Service(value) => service_from_wire(value).map(Resource::Service),
            }
        }
        ResourceType::Authorization => {
            policy_from_wire(message("istio.security.Authorization", bytes)?).map(Resource::Policy)
        }
    }
}

fn message<M: Message + Default>(name: &'static str, bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|error| DecodeError::Malformed { message: name, cause: error.to_string() })
}
