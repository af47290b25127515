//! A service: the addresses and names that stand for a set of workloads.
//!
//! Mirrors `istio.workload.Service` (`crates/wire/proto/istio/workload.proto`).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::NetworkAddress;
use crate::gateway::GatewayAddress;
pub use crate::service_key::{ServiceKey, ServiceKeyError};
use crate::spiffe::SpiffeId;

/// A VIP, or a range of addresses when `length` is shorter than the address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// The network; empty is the default one.
    pub network: Arc<str>,
    /// The prefix; a single address has its full length.
    pub prefix: IpNet,
}

impl ServiceAddress {
    /// A single address.
    #[must_use]
    pub fn single(network: impl Into<Arc<str>>, address: IpAddr) -> Self {
        Self { network: network.into(), prefix: IpNet::from(address) }
    }

    /// The address if it is a single one.
    #[must_use]
    pub fn as_single(&self) -> Option<NetworkAddress> {
        (self.prefix.prefix_len() == self.prefix.max_prefix_len())
            .then(|| NetworkAddress::new(self.network.clone(), self.prefix.addr()))
    }
}

/// What an application speaks on a port; telemetry and waypoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum AppProtocol {
    /// Not declared.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
    /// TLS, passed through.
    Tls,
}

/// One port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// The port that clients use.
    pub service_port: u16,
    /// The workloads' port; 0 when it is a named port: the endpoint's own mapping says it.
    pub target_port: u16,
    /// What is spoken there.
    pub app_protocol: AppProtocol,
}

/// How near an endpoint must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// What the scopes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum BalanceMode {
    /// Scopes do not matter.
    #[default]
    Any,
    /// Every scope must match.
    Strict,
    /// The longest matching prefix of the scopes wins.
    Failover,
    /// The client's own choice of address stands.
    Passthrough,
}

/// How connections are spread over the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LoadBalancing {
    /// What "near" means, most important first.
    pub scopes: Vec<Scope>,
    /// How strictly it is meant.
    pub mode: BalanceMode,
    /// Unhealthy endpoints count, too (`publishNotReadyAddresses`).
    pub allow_unhealthy: bool,
}

/// Which address families a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum IpFamilies {
    /// Not said.
    #[default]
    Automatic,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both.
    Dual,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its key.
    pub key: ServiceKey,
    /// Its short name.
    pub name: Arc<str>,
    /// Its VIPs and ranges; none when headless.
    pub addresses: Vec<ServiceAddress>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Identities that endpoints may also have.
    pub subject_alt_names: Vec<SpiffeId>,
    /// Traffic for the service goes through here first.
    pub waypoint: Option<GatewayAddress>,
    /// How to choose.
    pub load_balancing: LoadBalancing,
    /// Which families it has.
    pub ip_families: IpFamilies,
    /// Wins against other services of the same host name (every Kubernetes service).
    pub canonical: bool,
    /// Visible in its own namespace only.
    pub namespace_only: bool,
}

impl Service {
    /// A service with nothing but a name: what tests and translators start from.
    #[must_use]
    pub fn named(namespace: &str, name: &str, hostname: &str) -> Self {
        Self {
            key: ServiceKey::new(namespace, hostname),
            name: name.into(),
            addresses: Vec::new(),
            ports: Vec::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::Automatic,
            canonical: true,
            namespace_only: false,
        }
    }

    /// The port that clients name, if the service has it.
    #[must_use]
    pub fn port(&self, service_port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.service_port == service_port)
    }
}
