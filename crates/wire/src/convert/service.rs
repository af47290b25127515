//! `istio.workload.Service` (`proto/istio/workload.proto`).

use weft_model::service::{
    AppProtocol, BalanceMode, IpFamilies, LoadBalancing, Scope, Service, ServiceAddress, ServiceKey, ServicePort,
};
use weft_model::workload::GatewayAddress;

use super::error::DecodeError;
use super::{field, gateway};
use crate::proto::istio::workload as wire;

/// A service as a message.
#[must_use]
pub fn service_to_wire(service: &Service) -> wire::Service {
    wire::Service {
        name: service.name.to_string(),
        namespace: service.key.namespace.to_string(),
        hostname: service.key.hostname.to_string(),
        addresses: service.addresses.iter().map(address_to_wire).collect(),
        ports: service.ports.iter().map(port_to_wire).collect(),
        subject_alt_names: service.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: service.waypoint.as_ref().map(gateway::to_wire),
        load_balancing: balancing_to_wire(&service.load_balancing),
        ip_families: families_to_wire(service.ip_families).into(),
        extensions: Vec::new(),
        canonical: service.canonical,
        ingress_use_waypoint: false,
        weighted_waypoints: Vec::new(),
        visibility: visibility_to_wire(service.namespace_only).into(),
    }
}

/// The service that a message means.
///
/// Three things are read with less than their full meaning, each so that nothing becomes more permissive: of several
/// weighted waypoints the heaviest is taken for all traffic; an alternative name that is no mesh identity is left out,
/// since no peer can prove it; an unknown visibility is public, as the reference says.
///
/// # Errors
/// Names the field that cannot be read.
pub fn service_from_wire(message: wire::Service) -> Result<Service, DecodeError> {
    field::key_part("namespace", &message.namespace)?;
    field::key_part("hostname", &message.hostname)?;
    Ok(Service {
        key: ServiceKey::new(&message.namespace, &message.hostname),
        addresses: message.addresses.into_iter().map(address_from_wire).collect::<Result<_, _>>()?,
        ports: message.ports.iter().map(port_from_wire).collect::<Result<_, _>>()?,
        subject_alt_names: message.subject_alt_names.iter().filter_map(|name| name.parse().ok()).collect(),
        waypoint: waypoint_from_wire(message.waypoint, message.weighted_waypoints)?,
        load_balancing: message.load_balancing.map(balancing_from_wire).transpose()?.unwrap_or_default(),
        ip_families: families_from_wire(message.ip_families)?,
        canonical: message.canonical,
        namespace_only: message.visibility == i32::from(wire::ServiceVisibility::Namespace),
        name: message.name.into(),
    })
}

fn waypoint_from_wire(
    waypoint: Option<wire::GatewayAddress>,
    weighted: Vec<wire::WeightedWaypoint>,
) -> Result<Option<GatewayAddress>, DecodeError> {
    // `rev`: of equals the first wins.
    match weighted.into_iter().rev().max_by_key(|waypoint| waypoint.weight) {
        Some(heaviest) => {
            let field = "weighted_waypoints.destination";
            let destination = heaviest.destination.ok_or(DecodeError::Unset { field })?;
            gateway::from_wire(field, destination).map(Some)
        }
        None => waypoint.map(|waypoint| gateway::from_wire("waypoint", waypoint)).transpose(),
    }
}

fn address_to_wire(address: &ServiceAddress) -> wire::NetworkAddress {
    wire::NetworkAddress {
        network: address.network.to_string(),
        address: field::octets(address.prefix.addr()),
        length: address.as_single().is_none().then(|| address.prefix.prefix_len().into()),
    }
}

fn address_from_wire(address: wire::NetworkAddress) -> Result<ServiceAddress, DecodeError> {
    let prefix = field::prefix("addresses", &address.address, address.length)?;
    Ok(ServiceAddress { network: address.network.into(), prefix })
}

fn port_to_wire(port: &ServicePort) -> wire::Port {
    let app_protocol = match port.app_protocol {
        AppProtocol::Unknown => wire::AppProtocol::Unknown,
        AppProtocol::Http11 => wire::AppProtocol::Http11,
        AppProtocol::Http2 => wire::AppProtocol::Http2,
        AppProtocol::Grpc => wire::AppProtocol::Grpc,
        AppProtocol::Tcp => wire::AppProtocol::Tcp,
        AppProtocol::Tls => wire::AppProtocol::Tls,
    };
    wire::Port {
        service_port: port.service_port.into(),
        target_port: port.target_port.into(),
        app_protocol: app_protocol.into(),
    }
}

fn port_from_wire(port: &wire::Port) -> Result<ServicePort, DecodeError> {
    let app_protocol = match field::known("ports.app_protocol", port.app_protocol)? {
        wire::AppProtocol::Unknown => AppProtocol::Unknown,
        wire::AppProtocol::Http11 => AppProtocol::Http11,
        wire::AppProtocol::Http2 => AppProtocol::Http2,
        wire::AppProtocol::Grpc => AppProtocol::Grpc,
        wire::AppProtocol::Tcp => AppProtocol::Tcp,
        wire::AppProtocol::Tls => AppProtocol::Tls,
    };
    Ok(ServicePort {
        service_port: field::port("ports.service_port", port.service_port)?,
        target_port: field::port("ports.target_port", port.target_port)?,
        app_protocol,
    })
}

fn balancing_to_wire(balancing: &LoadBalancing) -> Option<wire::LoadBalancing> {
    use wire::load_balancing::{HealthPolicy, Mode, Scope as WireScope};
    let scope = |scope: &Scope| {
        i32::from(match scope {
            Scope::Region => WireScope::Region,
            Scope::Zone => WireScope::Zone,
            Scope::Subzone => WireScope::Subzone,
            Scope::Node => WireScope::Node,
            Scope::Cluster => WireScope::Cluster,
            Scope::Network => WireScope::Network,
        })
    };
    let mode = match balancing.mode {
        BalanceMode::Any => Mode::UnspecifiedMode,
        BalanceMode::Strict => Mode::Strict,
        BalanceMode::Failover => Mode::Failover,
        BalanceMode::Passthrough => Mode::Passthrough,
    };
    let health = if balancing.allow_unhealthy { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    (*balancing != LoadBalancing::default()).then(|| wire::LoadBalancing {
        routing_preference: balancing.scopes.iter().map(scope).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}

fn balancing_from_wire(balancing: wire::LoadBalancing) -> Result<LoadBalancing, DecodeError> {
    use wire::load_balancing::{HealthPolicy, Mode, Scope as WireScope};
    let field = "load_balancing.routing_preference";
    let scope = |value: i32| match field::known(field, value)? {
        WireScope::UnspecifiedScope => Err(DecodeError::UnknownValue { field, value }),
        WireScope::Region => Ok(Scope::Region),
        WireScope::Zone => Ok(Scope::Zone),
        WireScope::Subzone => Ok(Scope::Subzone),
        WireScope::Node => Ok(Scope::Node),
        WireScope::Cluster => Ok(Scope::Cluster),
        WireScope::Network => Ok(Scope::Network),
    };
    let mode = match field::known("load_balancing.mode", balancing.mode)? {
        Mode::UnspecifiedMode => BalanceMode::Any,
        Mode::Strict => BalanceMode::Strict,
        Mode::Failover => BalanceMode::Failover,
        Mode::Passthrough => BalanceMode::Passthrough,
    };
    let health: HealthPolicy = field::known("load_balancing.health_policy", balancing.health_policy)?;
    Ok(LoadBalancing {
        scopes: balancing.routing_preference.into_iter().map(scope).collect::<Result<_, _>>()?,
        mode,
        allow_unhealthy: health == HealthPolicy::AllowAll,
    })
}

fn families_to_wire(families: IpFamilies) -> wire::IpFamilies {
    match families {
        IpFamilies::Automatic => wire::IpFamilies::Automatic,
        IpFamilies::V4Only => wire::IpFamilies::Ipv4Only,
        IpFamilies::V6Only => wire::IpFamilies::Ipv6Only,
        IpFamilies::Dual => wire::IpFamilies::Dual,
    }
}

fn families_from_wire(value: i32) -> Result<IpFamilies, DecodeError> {
    Ok(match field::known("ip_families", value)? {
        wire::IpFamilies::Automatic => IpFamilies::Automatic,
        wire::IpFamilies::Ipv4Only => IpFamilies::V4Only,
        wire::IpFamilies::Ipv6Only => IpFamilies::V6Only,
        wire::IpFamilies::Dual => IpFamilies::Dual,
    })
}

fn visibility_to_wire(namespace_only: bool) -> wire::ServiceVisibility {
    if namespace_only { wire::ServiceVisibility::Namespace } else { wire::ServiceVisibility::Public }
}
