//! EndpointSlice (`discovery.k8s.io/v1`), as far as Weft reads it.

use std::net::IpAddr;

use serde::Serialize;
use weft_model::service::AppProtocol;

use super::metadata::Metadata;
use super::service::app_protocol;
use crate::fields::At;

/// The label that says which service a slice belongs to (Kubernetes, "EndpointSlices").
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointSlice {
    /// Names and labels.
    pub metadata: Metadata,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// The TCP ports of every endpoint.
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// The service that it belongs to, in its own namespace.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get(SERVICE_NAME_LABEL).map(String::as_str)
    }
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Its address: Kubernetes uses the first only, as all of one endpoint are alike.
    pub addresses: Vec<IpAddr>,
    /// Absent counts as ready (Kubernetes API, `EndpointConditions.ready`).
    pub ready: bool,
    /// The pod `(namespace, name)` that it is; none for an address outside of the cluster.
    pub pod: Option<(String, String)>,
    /// The node; empty if unknown.
    pub node: String,
    /// The zone; empty if unknown.
    pub zone: String,
}

/// One port of the slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointPort {
    /// The name of the service's port that it serves.
    pub name: String,
    /// The number; none means "every port", which no mesh can route.
    pub port: Option<u16>,
    /// What is spoken there.
    pub app_protocol: AppProtocol,
}

pub(super) fn read(root: &At<'_>, metadata: Metadata) -> EndpointSlice {
    root.only(&["addressType", "apiVersion", "endpoints", "kind", "metadata", "ports"]);
    let kind = root.field("addressType");
    if kind.required_text() == "FQDN" {
        kind.warning("is FQDN, which neither Kubernetes nor Weft can route; expected IPv4 or IPv6");
        return EndpointSlice { metadata, endpoints: Vec::new(), ports: Vec::new() };
    }
    kind.word(&[("IPv4", ()), ("IPv6", ())]);
    let endpoints = root.field("endpoints").items().iter().map(|at| endpoint(at, &metadata.namespace)).collect();
    let ports = root.field("ports").items().iter().filter_map(port).collect();
    EndpointSlice { metadata, endpoints, ports }
}

fn endpoint(at: &At<'_>, namespace: &str) -> Endpoint {
    at.only(&["addresses", "conditions", "deprecatedTopology", "hints", "hostname", "nodeName", "targetRef", "zone"]);
    let conditions = at.field("conditions");
    conditions.only(&["ready", "serving", "terminating"]);
    let addresses = at.field("addresses");
    if !addresses.is_present() {
        addresses.error("is missing; expected a list of IP addresses");
    }
    let target = at.field("targetRef");
    target.only(&["apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"]);
    let pod = (target.field("kind").text() == Some("Pod")).then(|| {
        let namespace = target.field("namespace").text().unwrap_or(namespace).to_owned();
        (namespace, target.field("name").required_text().to_owned())
    });
    Endpoint {
        addresses: addresses.items().iter().filter_map(At::address).collect(),
        ready: conditions.field("ready").boolean().unwrap_or(true),
        pod,
        node: at.field("nodeName").owned_text(),
        zone: at.field("zone").owned_text(),
    }
}

fn port(at: &At<'_>) -> Option<EndpointPort> {
    at.only(&["appProtocol", "name", "port", "protocol"]);
    let tcp = at.field("protocol").word(&[("TCP", true), ("UDP", false), ("SCTP", false)]).unwrap_or(true);
    let name = at.field("name").owned_text();
    let app_protocol = app_protocol(at.field("appProtocol").text(), &name);
    let port = EndpointPort { name, port: at.field("port").port(), app_protocol };
    tcp.then_some(port)
}
