//! Namespace, Node and ServiceAccount: the frame that pods stand in.

use std::net::IpAddr;

use serde::Serialize;

use super::metadata::Metadata;
use crate::fields::At;

/// A Namespace: its labels enrol and protect what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Names and labels.
    pub metadata: Metadata,
}

/// A ServiceAccount. Pods name it; nothing else of it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceAccount {
    /// Names and labels.
    pub metadata: Metadata,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Names and labels.
    pub metadata: Metadata,
    /// Its addresses, internal and external.
    pub addresses: Vec<IpAddr>,
}

/// `topology.kubernetes.io/region`: where cloud providers say it (Kubernetes, "Well-Known Labels").
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// `topology.kubernetes.io/zone`.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Istio's label for what is smaller than a zone; Kubernetes has none.
pub const SUBZONE_LABEL: &str = "topology.istio.io/subzone";

impl Node {
    /// The label's value; empty if it has none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.metadata.labels.get(name).map_or("", String::as_str)
    }
}

pub(super) fn read_namespace(root: &At<'_>, metadata: Metadata) -> Namespace {
    root.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    Namespace { metadata }
}

pub(super) fn read_service_account(root: &At<'_>, metadata: Metadata) -> ServiceAccount {
    root.only(&["apiVersion", "kind", "metadata", "automountServiceAccountToken", "imagePullSecrets", "secrets"]);
    ServiceAccount { metadata }
}

pub(super) fn read_node(root: &At<'_>, metadata: Metadata) -> Node {
    root.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let status = root.field("status");
    status.no_misspelt(&["addresses"]);
    let is_ip = |kind: &str| matches!(kind, "InternalIP" | "ExternalIP");
    let addresses = status.field("addresses").items();
    let addresses = addresses
        .iter()
        .filter(|address| is_ip(address.field("type").required_text()))
        .filter_map(|address| address.field("address").address())
        .collect();
    Node { metadata, addresses }
}
