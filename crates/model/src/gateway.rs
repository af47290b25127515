//! Proxies that stand before a workload or a service: waypoints and network gateways.

use serde::{Deserialize, Serialize};

use crate::address::NetworkAddress;
use crate::service_key::ServiceKey;

/// A waypoint or a network gateway, by address or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GatewayAddress {
    /// Who it is.
    pub destination: GatewayDestination,
    /// Its HBONE port, normally 15008.
    pub hbone_port: u16,
}

/// The two ways to name a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GatewayDestination {
    /// By address: a VIP or a pod.
    Address(NetworkAddress),
    /// By service.
    Hostname(ServiceKey),
}
