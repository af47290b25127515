//! Which workloads a gateway (waypoint) reference means, for both directions.

use std::net::IpAddr;
use std::sync::Arc;

use weft_model::mesh::Mesh;
use weft_model::service::{Service, ServiceKey};
use weft_model::workload::{GatewayAddress, GatewayDestination, Workload};

/// What a reference leads to.
#[derive(Debug, Clone, Copy)]
pub enum Gateway<'a> {
    /// The endpoints of a service.
    Service(&'a Arc<Service>),
    /// One workload, at this address.
    Workload(&'a Arc<Workload>, IpAddr),
}

/// Finds a gateway for a client in `namespace`; `None` when the mesh does not know it.
#[must_use]
pub fn find_gateway<'a>(mesh: &'a Mesh, gateway: &GatewayAddress, namespace: &str) -> Option<Gateway<'a>> {
    match &gateway.destination {
        GatewayDestination::Hostname(key) => mesh.service(key).map(Gateway::Service),
        GatewayDestination::Address(at) => mesh
            .service_at(at, namespace)
            .map(Gateway::Service)
            .or_else(|| mesh.workload_at(at).map(|workload| Gateway::Workload(workload, at.address))),
    }
}

/// Whether the workload is (part of) the gateway: what comes from a waypoint does not go to it again, and a waypoint is
/// asked for what belongs to others.
#[must_use]
pub fn is_gateway(mesh: &Mesh, workload: &Workload, gateway: &GatewayAddress) -> bool {
    let backs = |key: &ServiceKey| workload.services.contains_key(key);
    match &gateway.destination {
        GatewayDestination::Hostname(key) => backs(key),
        GatewayDestination::Address(at) => {
            workload.owns(&at.network, at.address)
                || mesh.service_at(at, &workload.namespace).is_some_and(|service| backs(&service.key))
        }
    }
}
