//! Service, as far as Weft reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use weft_model::service::{AppProtocol, IpFamilies};

use super::metadata::Metadata;
use crate::fields::At;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Names and labels.
    pub metadata: Metadata,
    /// `ClusterIP`, `NodePort` and `LoadBalancer` are alike for the mesh.
    pub external_name: bool,
    /// Its VIPs; none when it is headless or has none yet.
    pub cluster_ips: Vec<IpAddr>,
    /// It said `clusterIP: None`.
    pub headless: bool,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// Which pods serve it; empty when somebody else writes its EndpointSlices.
    pub selector: BTreeMap<String, String>,
    /// Pods that are not ready count, too.
    pub publish_not_ready: bool,
    /// Preferred neighbourhood.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// `internalTrafficPolicy: Local`.
    pub node_local: bool,
    /// Its address families.
    pub ip_families: IpFamilies,
}

/// One TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServicePort {
    /// Its name; empty when it is the only one.
    pub name: String,
    /// The number that clients use.
    pub port: u16,
    /// Where it leads.
    pub target: TargetPort,
    /// What is spoken there.
    pub app_protocol: AppProtocol,
}

/// Where a port of a Service leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum TargetPort {
    /// To this port.
    Number(u16),
    /// To the container port of this name, which each pod may number otherwise.
    Name(String),
}

/// `spec.trafficDistribution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum TrafficDistribution {
    /// `PreferClose`, and its newer name `PreferSameZone`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// Fields of `ServiceSpec` (Kubernetes 1.33 to 1.37).
const SPEC_FIELDS: [&str; 20] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

pub(super) fn read(root: &At<'_>, metadata: Metadata) -> Service {
    root.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let spec = root.field("spec");
    spec.only(&SPEC_FIELDS);
    let types = [("ClusterIP", false), ("NodePort", false), ("LoadBalancer", false), ("ExternalName", true)];
    let (headless, cluster_ips) = cluster_ips(&spec);
    let distributions = [
        ("PreferClose", TrafficDistribution::SameZone),
        ("PreferSameZone", TrafficDistribution::SameZone),
        ("PreferSameNode", TrafficDistribution::SameNode),
    ];
    Service {
        metadata,
        external_name: spec.field("type").word(&types).unwrap_or_default(),
        cluster_ips,
        headless,
        ports: ports(&spec.field("ports")),
        selector: spec.field("selector").texts(),
        publish_not_ready: spec.field("publishNotReadyAddresses").boolean().unwrap_or_default(),
        traffic_distribution: spec.field("trafficDistribution").word(&distributions),
        node_local: spec
            .field("internalTrafficPolicy")
            .word(&[("Cluster", false), ("Local", true)])
            .unwrap_or_default(),
        ip_families: ip_families(&spec.field("ipFamilies")),
    }
}

/// `None` and the empty text are what Kubernetes writes for "headless" and "not yet".
fn cluster_ips(spec: &At<'_>) -> (bool, Vec<IpAddr>) {
    let mut fields = spec.field("clusterIPs").items();
    fields.push(spec.field("clusterIP"));
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut headless = false;
    for field in fields {
        match field.text() {
            Some("None") => headless = true,
            None | Some("") => {}
            Some(_) => addresses.extend(field.address()),
        }
    }
    let mut seen = Vec::new();
    addresses.retain(|address| {
        let new = !seen.contains(address);
        seen.push(*address);
        new
    });
    if headless && !addresses.is_empty() {
        spec.field("clusterIP").error("says both None (headless) and an address; expected one of the two");
    }
    (headless, addresses)
}

fn ports(at: &At<'_>) -> Vec<ServicePort> {
    let items = at.items();
    let mut ports: Vec<ServicePort> = Vec::new();
    for item in &items {
        item.only(&["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"]);
        let number = item.field("port");
        if !number.is_present() {
            number.error("is missing; expected a port number from 1 to 65535");
        }
        let name = item.field("name").owned_text();
        if name.is_empty() && items.len() > 1 {
            item.field("name").error("is missing; expected a name, because the service has several ports");
        }
        let tcp = item.field("protocol").word(&[("TCP", true), ("UDP", false), ("SCTP", false)]).unwrap_or(true);
        let target = item.field("targetPort").port_or_name();
        let Some(port) = number.port() else { continue };
        if !tcp {
            continue; // The mesh carries TCP; the rest passes by as without a mesh.
        }
        if ports.iter().any(|other| other.port == port || (!name.is_empty() && other.name == name)) {
            item.error(format!("repeats port {port} or its name; expected each once"));
        }
        let target = match target {
            Some(Ok(number)) => TargetPort::Number(number),
            Some(Err(name)) => TargetPort::Name(name.to_owned()),
            None => TargetPort::Number(port),
        };
        let app_protocol = app_protocol(item.field("appProtocol").text(), &name);
        ports.push(ServicePort { name, port, target, app_protocol });
    }
    ports
}

/// `appProtocol`, else the prefix of the port's name, as Istio reads both (its "Protocol Selection" page).
pub(super) fn app_protocol(declared: Option<&str>, name: &str) -> AppProtocol {
    match declared {
        Some("kubernetes.io/h2c") => return AppProtocol::Http2,
        Some("kubernetes.io/ws") => return AppProtocol::Http11,
        Some("kubernetes.io/wss") => return AppProtocol::Tls,
        _ => {}
    }
    let word = declared.unwrap_or_else(|| name.split('-').next().unwrap_or_default());
    match word.to_ascii_lowercase().as_str() {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tls" | "https" => AppProtocol::Tls,
        "tcp" | "mongo" | "redis" | "mysql" => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

fn ip_families(at: &At<'_>) -> IpFamilies {
    let families: Vec<IpFamilies> = at
        .items()
        .iter()
        .filter_map(|item| item.word(&[("IPv4", IpFamilies::V4Only), ("IPv6", IpFamilies::V6Only)]))
        .collect();
    match families.as_slice() {
        [] => IpFamilies::Automatic,
        [one] => *one,
        _ => IpFamilies::Dual,
    }
}
