//! Service objects as services of the mesh, filled in as istiod does.

use weft_manifest::objects::{Service as ServiceObject, ServicePort as PortObject, TargetPort, TrafficDistribution};
use weft_manifest::{Conflicts, Objects};
use weft_model::Service;
use weft_model::service::{BalanceMode, LoadBalancing, Scope, ServiceAddress, ServicePort};

use super::settings::MeshSettings;

/// All but `ExternalName`, which is an alias in DNS and has neither address nor endpoint.
pub(super) fn all(objects: &Objects, conflicts: &Conflicts, settings: &MeshSettings) -> Vec<Service> {
    let services = objects.services.iter().filter(|(_, service)| !service.external_name);
    let translated = services.map(|(name, object)| {
        let mut service = translate(object, settings);
        // Two services with one address: the first by name has it, else a client's choice would be a matter of luck.
        service.addresses.retain(|address| !conflicts.services.contains_key(&(name.clone(), address.prefix.addr())));
        service
    });
    translated.collect()
}

fn translate(object: &ServiceObject, settings: &MeshSettings) -> Service {
    let (namespace, name) = (&*object.metadata.namespace, &*object.metadata.name);
    let key = settings.service_key(namespace, name);
    let single = |address| ServiceAddress::single(settings.network.clone(), address);
    Service {
        addresses: object.cluster_ips.iter().copied().map(single).collect(),
        ports: object.ports.iter().map(port).collect(),
        load_balancing: load_balancing(object),
        ip_families: object.ip_families,
        ..Service::named(namespace, name, &key.hostname)
    }
}

fn port(object: &PortObject) -> ServicePort {
    let target_port = match object.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => 0, // each endpoint has its own mapping
    };
    ServicePort { service_port: object.port, target_port, app_protocol: object.app_protocol }
}

fn load_balancing(object: &ServiceObject) -> LoadBalancing {
    let near = [Scope::Network, Scope::Region, Scope::Zone];
    // "Local" is a promise, the distribution a preference: the promise goes first.
    let (mode, scopes) = match (object.node_local, object.traffic_distribution) {
        (true, _) => (BalanceMode::Strict, vec![Scope::Node]),
        (false, Some(TrafficDistribution::SameZone)) => (BalanceMode::Failover, near.to_vec()),
        (false, Some(TrafficDistribution::SameNode)) => {
            (BalanceMode::Failover, near.into_iter().chain([Scope::Subzone, Scope::Node]).collect())
        }
        (false, None) => (BalanceMode::Any, Vec::new()),
    };
    LoadBalancing { scopes, mode, allow_unhealthy: object.publish_not_ready }
}
