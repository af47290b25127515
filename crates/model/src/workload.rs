//! A workload: one pod (or other endpoint) as every agent knows it.
//!
//! Mirrors `istio.workload.Workload` (`crates/wire/proto/istio/workload.proto`) in our words; `weft-wire` converts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::authz::PolicyKey;
pub use crate::gateway::{GatewayAddress, GatewayDestination};
use crate::service_key::ServiceKey;
use crate::spiffe::{SpiffeError, SpiffeId};

/// The mesh-wide name of a workload: `<cluster>//Pod/<namespace>/<name>` for pods.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub Arc<str>);

impl Uid {
    /// The uid of a pod.
    #[must_use]
    pub fn of_pod(cluster: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{cluster}//Pod/{namespace}/{name}").into())
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a workload wants to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TunnelProtocol {
    /// Plain TCP: not in the mesh.
    #[default]
    None,
    /// mTLS HTTP/2 CONNECT on port 15008.
    Hbone,
}

/// Whether new connections should go to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready, or being deleted.
    Unhealthy,
}

/// What kind of object owns the workload; telemetry only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum WorkloadType {
    /// A Deployment (also the default for other owners, as Istio has it).
    #[default]
    Deployment,
    /// A `CronJob`.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

impl WorkloadType {
    /// The word in the baggage key `k8s.<word>.name`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

/// Where a workload runs, from large to small; empty parts are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// Finer than a zone.
    pub subzone: Arc<str>,
}

/// A proxy in front of the application that wants the connection on a port of its own (sandwiched waypoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ApplicationTunnel {
    /// Whether a PROXY v2 header comes first.
    pub proxy_protocol: bool,
    /// The port to connect to.
    pub port: u16,
}

/// One port of a service on this workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The service's port.
    pub service_port: u16,
    /// The workload's port.
    pub target_port: u16,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its key.
    pub uid: Uid,
    /// The pod's name.
    pub name: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// Its addresses; may be empty (then `hostname` or a gateway leads there).
    pub addresses: Vec<IpAddr>,
    /// The network of its addresses; empty is the default one.
    pub network: Arc<str>,
    /// How to reach it.
    pub tunnel: TunnelProtocol,
    /// It speaks HBONE itself (a waypoint): nothing is unwrapped for it.
    pub native_tunnel: bool,
    /// Its trust domain.
    pub trust_domain: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Traffic addressed to the workload itself goes through here first.
    pub waypoint: Option<GatewayAddress>,
    /// How to reach it from another network.
    pub network_gateway: Option<GatewayAddress>,
    /// The node that it runs on.
    pub node: Arc<str>,
    /// `app.kubernetes.io/name` or the like; telemetry.
    pub canonical_name: Arc<str>,
    /// Version; telemetry.
    pub canonical_revision: Arc<str>,
    /// Kind of the owner; telemetry.
    pub workload_type: WorkloadType,
    /// Name of the owner; telemetry.
    pub workload_name: Arc<str>,
    /// The policies that name this workload; all must be known before anything is permitted.
    pub policies: Vec<PolicyKey>,
    /// Whether to send new connections.
    pub health: Health,
    /// The cluster.
    pub cluster: Arc<str>,
    /// A DNS name to resolve instead of `addresses`; empty if none.
    pub hostname: Arc<str>,
    /// The services that it is an endpoint of, with its ports there.
    pub services: BTreeMap<ServiceKey, Vec<PortMapping>>,
    /// A proxy in front of the application.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Where it runs.
    pub locality: Locality,
    /// It shares the node's addresses, so it cannot be found by address.
    pub host_network: bool,
    /// Weight for load balancing; 1 is normal, 0 gets nothing.
    pub capacity: u32,
}

impl Workload {
    /// A workload with nothing but a name: what tests and translators start from.
    #[must_use]
    pub fn named(cluster: &str, namespace: &str, name: &str) -> Self {
        let empty: Arc<str> = "".into();
        Self {
            uid: Uid::of_pod(cluster, namespace, name),
            name: name.into(),
            namespace: namespace.into(),
            addresses: Vec::new(),
            network: empty.clone(),
            tunnel: TunnelProtocol::None,
            native_tunnel: false,
            trust_domain: DEFAULT_TRUST_DOMAIN.into(),
            service_account: DEFAULT_SERVICE_ACCOUNT.into(),
            waypoint: None,
            network_gateway: None,
            node: empty.clone(),
            canonical_name: empty.clone(),
            canonical_revision: empty.clone(),
            workload_type: WorkloadType::Pod,
            workload_name: name.into(),
            policies: Vec::new(),
            health: Health::Healthy,
            cluster: cluster.into(),
            hostname: empty,
            services: BTreeMap::new(),
            application_tunnel: None,
            locality: Locality::default(),
            host_network: false,
            capacity: 1,
        }
    }

    /// The identity that its certificate carries.
    ///
    /// # Errors
    /// The trust domain, namespace or service account cannot be part of an identity.
    pub fn identity(&self) -> Result<SpiffeId, SpiffeError> {
        SpiffeId::new(&self.trust_domain, &self.namespace, &self.service_account)
    }

    /// Whether `address` is one of its addresses in `network`.
    #[must_use]
    pub fn owns(&self, network: &str, address: IpAddr) -> bool {
        &*self.network == network && self.addresses.contains(&address)
    }
}

/// What an absent trust domain means on the wire (field 6 of `istio.workload.Workload`).
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// What an absent service account means on the wire (section 8, field 7).
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// What an absent cluster id means on the wire (section 8, field 18).
pub const DEFAULT_CLUSTER: &str = "Kubernetes";
/// The port of HBONE (Istio's, fixed by the wire).
pub const HBONE_PORT: u16 = 15008;
