//! Waypoints and network gateways: `istio.workload.GatewayAddress`.

use weft_model::NetworkAddress;
use weft_model::service::ServiceKey;
use weft_model::workload::{GatewayAddress, GatewayDestination, HBONE_PORT};

use super::error::DecodeError;
use super::field;
use crate::proto::istio::workload as wire;

pub(super) fn to_wire(gateway: &GatewayAddress) -> wire::GatewayAddress {
    let destination = match &gateway.destination {
        GatewayDestination::Address(address) => wire::gateway_address::Destination::Address(wire::NetworkAddress {
            network: address.network.to_string(),
            address: field::octets(address.address),
            length: None,
        }),
        GatewayDestination::Hostname(key) => wire::gateway_address::Destination::Hostname(wire::NamespacedHostname {
            namespace: key.namespace.to_string(),
            hostname: key.hostname.to_string(),
        }),
    };
    wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: gateway.hbone_port.into() }
}

pub(super) fn from_wire(field: &'static str, gateway: wire::GatewayAddress) -> Result<GatewayAddress, DecodeError> {
    let destination = match gateway.destination.ok_or(DecodeError::Unset { field })? {
        wire::gateway_address::Destination::Address(address) => {
            let ip = field::address(field, &address.address)?;
            GatewayDestination::Address(NetworkAddress::new(address.network, ip))
        }
        wire::gateway_address::Destination::Hostname(name) => {
            field::key_part(field, &name.namespace)?;
            field::key_part(field, &name.hostname)?;
            GatewayDestination::Hostname(ServiceKey::new(&name.namespace, &name.hostname))
        }
    };
    let hbone_port = match field::port(field, gateway.hbone_mtls_port)? {
        0 => HBONE_PORT,
        port => port,
    };
    Ok(GatewayAddress { destination, hbone_port })
}
