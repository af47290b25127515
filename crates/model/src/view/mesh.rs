//! The mesh index as rows, sorted by namespace and name.

use crate::authz::{Match, Mode, Policy, Scope, StringMatch};
use crate::mesh::Mesh;
use crate::service::{AppProtocol, Service, ServicePort};
use crate::view::{EndpointRow, PodRow, PolicyRow, ServiceRow};
use crate::workload::{GatewayAddress, GatewayDestination, Health, TunnelProtocol, Workload};

/// Every workload.
#[must_use]
pub fn pods(mesh: &Mesh) -> Vec<PodRow> {
    let mut rows: Vec<PodRow> = mesh.workloads().map(|workload| pod(workload)).collect();
    rows.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    rows
}

/// Every service with its endpoints.
#[must_use]
pub fn services(mesh: &Mesh) -> Vec<ServiceRow> {
    let mut rows: Vec<ServiceRow> = mesh.services().map(|found| service(mesh, found)).collect();
    rows.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    rows
}

/// Every policy with its rules in words.
#[must_use]
pub fn policies(mesh: &Mesh) -> Vec<PolicyRow> {
    let mut rows: Vec<PolicyRow> = mesh.policies().map(|found| policy(mesh, found)).collect();
    rows.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    rows
}

fn pod(workload: &Workload) -> PodRow {
    PodRow {
        namespace: workload.namespace.to_string(),
        name: workload.name.to_string(),
        node: workload.node.to_string(),
        addresses: workload.addresses.iter().map(ToString::to_string).collect(),
        identity: workload.identity().map_or_else(|error| error.to_string(), |id| id.to_string()),
        in_mesh: in_mesh(workload),
        healthy: workload.health == Health::Healthy,
        services: workload.services.keys().map(|key| short_name(&key.namespace, &key.hostname)).collect(),
        policies: workload.policies.iter().map(ToString::to_string).collect(),
        captured_here: None,
        note: workload.host_network.then(|| "shares the node's network: never captured".to_owned()),
    }
}

fn in_mesh(workload: &Workload) -> bool {
    workload.tunnel == TunnelProtocol::Hbone
}

/// `shop/cart` of `shop` and `cart.shop.svc.cluster.local`.
fn short_name(namespace: &str, hostname: &str) -> String {
    let name = hostname.split('.').next().unwrap_or(hostname);
    format!("{namespace}/{name}")
}

fn service(mesh: &Mesh, service: &Service) -> ServiceRow {
    let endpoints = mesh.endpoints(&service.key).into_iter().flat_map(|set| set.workloads());
    let mut endpoints: Vec<EndpointRow> = endpoints.map(|workload| endpoint(workload)).collect();
    endpoints.sort_by(|one, other| one.workload.cmp(&other.workload));
    ServiceRow {
        namespace: service.key.namespace.to_string(),
        name: service.name.to_string(),
        hostname: service.key.hostname.to_string(),
        addresses: service
            .addresses
            .iter()
            .map(|address| address.as_single().map_or(address.prefix.to_string(), |single| single.address.to_string()))
            .collect(),
        ports: service.ports.iter().map(port).collect(),
        waypoint: service.waypoint.as_ref().map(gateway),
        endpoints,
    }
}

fn endpoint(workload: &Workload) -> EndpointRow {
    EndpointRow {
        workload: format!("{}/{}", workload.namespace, workload.name),
        addresses: workload.addresses.iter().map(ToString::to_string).collect(),
        healthy: workload.health == Health::Healthy,
        in_mesh: in_mesh(workload),
        left_out: None,
    }
}

fn port(port: &ServicePort) -> String {
    let protocol = match port.app_protocol {
        AppProtocol::Unknown => "",
        AppProtocol::Http11 => "/http",
        AppProtocol::Http2 => "/http2",
        AppProtocol::Grpc => "/grpc",
        AppProtocol::Tcp => "/tcp",
        AppProtocol::Tls => "/tls",
    };
    match port.target_port {
        0 => format!("{}->(named){protocol}", port.service_port),
        target => format!("{}->{target}{protocol}", port.service_port),
    }
}

fn gateway(gateway: &GatewayAddress) -> String {
    match &gateway.destination {
        GatewayDestination::Address(address) => format!("{}:{}", address.address, gateway.hbone_port),
        GatewayDestination::Hostname(key) => format!("{}:{}", key.hostname, gateway.hbone_port),
    }
}

fn policy(mesh: &Mesh, policy: &Policy) -> PolicyRow {
    let is_for = |workload: &Workload| match policy.scope {
        Scope::Global => true,
        Scope::Namespace => workload.namespace == policy.key.namespace,
        Scope::Selected => workload.policies.contains(&policy.key),
    };
    let scope = match policy.scope {
        Scope::Global => "mesh",
        Scope::Namespace => "namespace",
        Scope::Selected => "selected",
    };
    let mode = match policy.mode {
        Mode::Enforce => "Enforce",
        Mode::Shadow => "Shadow",
    };
    PolicyRow {
        namespace: policy.key.namespace.to_string(),
        name: policy.key.name.to_string(),
        scope: scope.to_owned(),
        action: format!("{:?}", policy.action),
        mode: mode.to_owned(),
        workloads: mesh.workloads().filter(|workload| is_for(workload)).count(),
        rules: rules(policy),
    }
}

/// One line for each group: rules joined by "and", their alternatives by "or".
fn rules(policy: &Policy) -> Vec<String> {
    let one_of = |matches: &[Match]| match matches {
        [] => "anything".to_owned(),
        [one] => words(one),
        several => format!("({})", several.iter().map(words).collect::<Vec<_>>().join(" or ")),
    };
    let group = |group: &crate::authz::Group| {
        group.rules.iter().map(|rule| one_of(&rule.matches)).collect::<Vec<_>>().join(" and ")
    };
    policy.groups.iter().map(group).collect()
}

fn words(rule: &Match) -> String {
    let patterns = |patterns: &[StringMatch]| {
        patterns
            .iter()
            .map(|pattern| match pattern {
                StringMatch::Exact(text) => text.to_string(),
                StringMatch::Prefix(text) => format!("{text}*"),
                StringMatch::Suffix(text) => format!("*{text}"),
                StringMatch::Presence => "*".to_owned(),
            })
            .collect::<Vec<_>>()
            .join(",")
    };
    let accounts = |list: &[crate::authz::ServiceAccountMatch]| {
        list.iter().map(|account| format!("{}/{}", account.namespace, account.name)).collect::<Vec<_>>().join(",")
    };
    let list = |list: &[ipnet::IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let ports = |list: &[u16]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let fields = [
        ("namespace", patterns(&rule.namespaces)),
        ("not namespace", patterns(&rule.not_namespaces)),
        ("identity", patterns(&rule.principals)),
        ("not identity", patterns(&rule.not_principals)),
        ("account", accounts(&rule.service_accounts)),
        ("not account", accounts(&rule.not_service_accounts)),
        ("from", list(&rule.source_ips)),
        ("not from", list(&rule.not_source_ips)),
        ("to", list(&rule.destination_ips)),
        ("not to", list(&rule.not_destination_ips)),
        ("port", ports(&rule.destination_ports)),
        ("not port", ports(&rule.not_destination_ports)),
    ];
    let said: Vec<String> =
        fields.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name} {value}")).collect();
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}
