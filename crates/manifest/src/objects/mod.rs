//! Kubernetes objects with just what Weft reads of them.
//!
//! Kinds of our own are read strictly. In kinds of Kubernetes an unknown field is a fault where a misspelt one would
//! silently lose meaning (metadata, specs, slices: the full lists up to Kubernetes 1.37 stand beside each reader); what
//! machines write (status) may grow with the versions of Kubernetes.

mod cluster;
mod kind;
mod metadata;
mod pod;
mod policy;
mod probe;
mod read;
mod selector;
mod service;
mod set;
mod slice;
#[cfg(test)]
mod tests;

pub use cluster::{Namespace, Node, REGION_LABEL, SUBZONE_LABEL, ServiceAccount, ZONE_LABEL};
pub use kind::{Kind, ObjectKey, WEFT_GROUP};
pub use metadata::{Metadata, NETNS_ANNOTATION, Owner, WAYPOINT_LABEL};
pub use pod::{CAPTURED_CONDITION, NamedPort, Phase, Pod};
pub use policy::{
    AuthorizationPolicy, PeerCondition, PolicyRule, PolicyTarget, PortCondition, RESERVED_POLICY_PREFIX,
    STRICT_MTLS_POLICY,
};
pub use read::{Object, Reading, read, read_served};
pub(crate) use selector::contains;
pub use selector::{Expression, Operator, Selector};
pub use service::{Service, ServicePort, TargetPort, TrafficDistribution};
pub use set::Objects;
pub use slice::{Endpoint, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL};
