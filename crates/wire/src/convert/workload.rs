//! `istio.workload.Workload` (`proto/istio/workload.proto`).

use std::collections::BTreeMap;

use weft_model::authz::PolicyKey;
use weft_model::service::ServiceKey;
use weft_model::workload::{
    ApplicationTunnel, DEFAULT_CLUSTER, DEFAULT_SERVICE_ACCOUNT, DEFAULT_TRUST_DOMAIN, Health, Locality, PortMapping,
    TunnelProtocol, Uid, Workload, WorkloadType,
};

use super::error::DecodeError;
use super::{field, gateway};
use crate::proto::istio::workload as wire;

/// A workload as a message.
#[must_use]
pub fn workload_to_wire(workload: &Workload) -> wire::Workload {
    wire::Workload {
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|address| field::octets(*address)).collect(),
        network: workload.network.to_string(),
        tunnel_protocol: tunnel_to_wire(workload.tunnel).into(),
        trust_domain: field::elide(&workload.trust_domain, DEFAULT_TRUST_DOMAIN),
        service_account: field::elide(&workload.service_account, DEFAULT_SERVICE_ACCOUNT),
        waypoint: workload.waypoint.as_ref().map(gateway::to_wire),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: type_to_wire(workload.workload_type).into(),
        workload_name: workload.workload_name.to_string(),
        native_tunnel: workload.native_tunnel,
        authorization_policies: workload.policies.iter().map(ToString::to_string).collect(),
        status: health_to_wire(workload.health).into(),
        cluster_id: field::elide(&workload.cluster, DEFAULT_CLUSTER),
        network_gateway: workload.network_gateway.as_ref().map(gateway::to_wire),
        uid: workload.uid.to_string(),
        hostname: workload.hostname.to_string(),
        services: workload.services.iter().map(|(key, ports)| (key.to_string(), ports_to_wire(ports))).collect(),
        application_tunnel: workload.application_tunnel.map(tunnel_to_application),
        locality: locality_to_wire(&workload.locality),
        network_mode: mode_to_wire(workload.host_network).into(),
        extensions: Vec::new(),
        capacity: (workload.capacity != 1).then_some(workload.capacity),
    }
}

/// The workload that a message means. Foreign extensions are left out: they have no meaning to us.
///
/// # Errors
/// Names the field that cannot be read.
pub fn workload_from_wire(message: wire::Workload) -> Result<Workload, DecodeError> {
    if message.uid.is_empty() {
        return Err(DecodeError::Unset { field: "uid" });
    }
    let addresses = message.addresses.iter().map(|bytes| field::address("addresses", bytes));
    let gateway = |name, value: Option<wire::GatewayAddress>| value.map(|value| gateway::from_wire(name, value));
    Ok(Workload {
        addresses: addresses.collect::<Result<_, _>>()?,
        tunnel: tunnel_from_wire(message.tunnel_protocol)?,
        waypoint: gateway("waypoint", message.waypoint).transpose()?,
        network_gateway: gateway("network_gateway", message.network_gateway).transpose()?,
        workload_type: type_from_wire(message.workload_type)?,
        policies: policies_from_wire(&message.authorization_policies)?,
        health: health_from_wire(message.status)?,
        services: services_from_wire(message.services)?,
        application_tunnel: message.application_tunnel.map(application_from_wire).transpose()?,
        host_network: mode_from_wire(message.network_mode)?,
        uid: Uid(message.uid.into()),
        name: message.name.into(),
        namespace: message.namespace.into(),
        network: message.network.into(),
        native_tunnel: message.native_tunnel,
        trust_domain: field::text_or(message.trust_domain, DEFAULT_TRUST_DOMAIN),
        service_account: field::text_or(message.service_account, DEFAULT_SERVICE_ACCOUNT),
        node: message.node.into(),
        canonical_name: message.canonical_name.into(),
        canonical_revision: message.canonical_revision.into(),
        workload_name: message.workload_name.into(),
        cluster: field::text_or(message.cluster_id, DEFAULT_CLUSTER),
        hostname: message.hostname.into(),
        locality: message.locality.map(locality_from_wire).unwrap_or_default(),
        capacity: message.capacity.unwrap_or(1),
    })
}

fn tunnel_to_wire(tunnel: TunnelProtocol) -> wire::TunnelProtocol {
    match tunnel {
        TunnelProtocol::None => wire::TunnelProtocol::None,
        TunnelProtocol::Hbone => wire::TunnelProtocol::Hbone,
    }
}

fn tunnel_from_wire(value: i32) -> Result<TunnelProtocol, DecodeError> {
    match field::known("tunnel_protocol", value)? {
        wire::TunnelProtocol::None => Ok(TunnelProtocol::None),
        wire::TunnelProtocol::Hbone => Ok(TunnelProtocol::Hbone),
        wire::TunnelProtocol::LegacyIstioMtls => {
            Err(DecodeError::Unsupported { field: "tunnel_protocol", value: "LEGACY_ISTIO_MTLS" })
        }
    }
}

fn type_to_wire(kind: WorkloadType) -> wire::WorkloadType {
    match kind {
        WorkloadType::Deployment => wire::WorkloadType::Deployment,
        WorkloadType::CronJob => wire::WorkloadType::Cronjob,
        WorkloadType::Pod => wire::WorkloadType::Pod,
        WorkloadType::Job => wire::WorkloadType::Job,
    }
}

fn type_from_wire(value: i32) -> Result<WorkloadType, DecodeError> {
    Ok(match field::known("workload_type", value)? {
        wire::WorkloadType::Deployment => WorkloadType::Deployment,
        wire::WorkloadType::Cronjob => WorkloadType::CronJob,
        wire::WorkloadType::Pod => WorkloadType::Pod,
        wire::WorkloadType::Job => WorkloadType::Job,
    })
}

fn health_to_wire(health: Health) -> wire::WorkloadStatus {
    match health {
        Health::Healthy => wire::WorkloadStatus::Healthy,
        Health::Unhealthy => wire::WorkloadStatus::Unhealthy,
    }
}

fn health_from_wire(value: i32) -> Result<Health, DecodeError> {
    Ok(match field::known("status", value)? {
        wire::WorkloadStatus::Healthy => Health::Healthy,
        wire::WorkloadStatus::Unhealthy => Health::Unhealthy,
    })
}

fn mode_to_wire(host_network: bool) -> wire::NetworkMode {
    if host_network { wire::NetworkMode::HostNetwork } else { wire::NetworkMode::Standard }
}

fn mode_from_wire(value: i32) -> Result<bool, DecodeError> {
    field::known("network_mode", value).map(|mode: wire::NetworkMode| mode == wire::NetworkMode::HostNetwork)
}

fn ports_to_wire(ports: &[PortMapping]) -> wire::PortList {
    let port = |port: &PortMapping| wire::Port {
        service_port: port.service_port.into(),
        target_port: port.target_port.into(),
        app_protocol: wire::AppProtocol::Unknown.into(),
    };
    wire::PortList { ports: ports.iter().map(port).collect() }
}

fn services_from_wire(
    services: BTreeMap<String, wire::PortList>,
) -> Result<BTreeMap<ServiceKey, Vec<PortMapping>>, DecodeError> {
    let port = |port: wire::Port| {
        let service_port = field::port("services.ports.service_port", port.service_port)?;
        let target_port = field::port("services.ports.target_port", port.target_port)?;
        Ok(PortMapping { service_port, target_port })
    };
    let service = |(key, list): (String, wire::PortList)| {
        let wrong = |error: weft_model::service::ServiceKeyError| DecodeError::Text {
            field: "services",
            problem: error.to_string(),
        };
        let ports = list.ports.into_iter().map(port).collect::<Result<Vec<_>, DecodeError>>()?;
        Ok((ServiceKey::try_from(key).map_err(wrong)?, ports))
    };
    services.into_iter().map(service).collect()
}

fn policies_from_wire(names: &[String]) -> Result<Vec<PolicyKey>, DecodeError> {
    let policy = |name: &String| {
        name.parse::<PolicyKey>()
            .map_err(|error| DecodeError::Text { field: "authorization_policies", problem: error.to_string() })
    };
    names.iter().map(policy).collect()
}

fn tunnel_to_application(tunnel: ApplicationTunnel) -> wire::ApplicationTunnel {
    let protocol = if tunnel.proxy_protocol {
        wire::application_tunnel::Protocol::Proxy
    } else {
        wire::application_tunnel::Protocol::None
    };
    wire::ApplicationTunnel { protocol: protocol.into(), port: tunnel.port.into() }
}

fn application_from_wire(tunnel: wire::ApplicationTunnel) -> Result<ApplicationTunnel, DecodeError> {
    let protocol: wire::application_tunnel::Protocol = field::known("application_tunnel.protocol", tunnel.protocol)?;
    Ok(ApplicationTunnel {
        proxy_protocol: protocol == wire::application_tunnel::Protocol::Proxy,
        port: field::port("application_tunnel.port", tunnel.port)?,
    })
}

fn locality_to_wire(locality: &Locality) -> Option<wire::Locality> {
    (*locality != Locality::default()).then(|| wire::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        subzone: locality.subzone.to_string(),
    })
}

fn locality_from_wire(locality: wire::Locality) -> Locality {
    Locality { region: locality.region.into(), zone: locality.zone.into(), subzone: locality.subzone.into() }
}
