//! The shapes. Everything optional is left out of the JSON when it is not there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One pod (or other workload).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The node that it runs on; empty if unknown.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its SPIFFE identity.
    pub identity: String,
    /// Whether it is reached through an encrypted tunnel.
    pub in_mesh: bool,
    /// Whether new connections are sent to it.
    pub healthy: bool,
    /// The services that it is an endpoint of (`namespace/name`).
    pub services: Vec<String>,
    /// The policies that select it by name.
    pub policies: Vec<String>,
    /// Whether this node's agent serves it now; absent for pods of other nodes and on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured_here: Option<bool>,
    /// Why it is not in the mesh or not captured, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Namespace.
    pub namespace: String,
    /// Short name.
    pub name: String,
    /// Full host name.
    pub hostname: String,
    /// VIPs; none when headless.
    pub addresses: Vec<String>,
    /// `80->8080/http`.
    pub ports: Vec<String>,
    /// Its waypoint, if traffic must go through one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<String>,
    /// Who serves it.
    pub endpoints: Vec<EndpointRow>,
}

/// One endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether new connections are sent to it.
    pub healthy: bool,
    /// Whether it is reached through an encrypted tunnel.
    pub in_mesh: bool,
    /// Agents: why this node leaves it out now, and since when, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// An application, a peer agent or a node that is left out for a while, because connections failed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectionRow {
    /// `endpoint`, `tunnel` or `node`.
    pub kind: String,
    /// Which: `namespace/name:port` of the workload, address of the peer agent, or the node.
    pub subject: String,
    /// `refused`, `no answer`, `failed` or `reset`.
    pub cause: String,
    /// How long it has been left out, in milliseconds.
    pub out_ms: u64,
    /// When a connection may try it again, in milliseconds; absent while one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// How often it was left out in a row.
    pub times: u32,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `mesh`, `namespace` or `selected`.
    pub scope: String,
    /// `Allow` or `Deny`.
    pub action: String,
    /// `Enforce` or `Shadow`.
    pub mode: String,
    /// How many known workloads it is for.
    pub workloads: usize,
    /// Its alternatives, one line each.
    pub rules: Vec<String>,
}

/// One connection, live or recently refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// `outbound` or `inbound`.
    pub direction: String,
    /// The client's address.
    pub source: String,
    /// `namespace/name` of the client, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_workload: Option<String>,
    /// The client's proved identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// Where it goes.
    pub destination: String,
    /// `namespace/name` of the server, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_workload: Option<String>,
    /// The service that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `mtls`, `same-node` or `plaintext`.
    pub security: String,
    /// Bytes from client to server.
    pub sent: u64,
    /// Bytes from server to client.
    pub received: u64,
    /// Since it was accepted (live) or refused, in milliseconds.
    pub age_ms: u64,
    /// The policy that permitted or denied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The reason code, if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error's own words, if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// The SPIFFE identity.
    pub identity: String,
    /// `valid`, `renewing`, `waiting`, `expired`.
    pub state: String,
    /// Serial number in hexadecimal; empty when there is none yet.
    pub serial: String,
    /// Seconds since 1970; 0 when there is none yet.
    pub not_before: i64,
    /// Seconds since 1970; 0 when there is none yet.
    pub not_after: i64,
    /// Seconds since 1970 at which it will be asked for (again).
    pub next_request: i64,
    /// How many workloads use it.
    pub users: usize,
    /// The last error of the certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What a program was told to do, and what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    /// `weft-node-agent` or `weft-xds-server`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The node (agents) or empty (server).
    pub node: String,
    /// Settings by name, as text; secrets are never among them.
    pub settings: BTreeMap<String, String>,
    /// Server: when the certificate ends that signs those of workloads, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_until: Option<i64>,
    /// Agents: the stream from the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlaneView>,
    /// Server: the nodes that are connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<SubscriberRow>,
    /// Server: what is wrong with the objects that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// An agent's end of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlaneView {
    /// Where it is.
    pub address: String,
    /// Whether the stream stands.
    pub connected: bool,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// By resource type.
    pub types: Vec<TypeRow>,
}

/// What is held of one resource type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeRow {
    /// Short name of the type: `Address` or `Authorization`.
    pub name: String,
    /// Resources in force.
    pub held: usize,
    /// Resources that there should be (server), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<usize>,
    /// Resources that were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedRow>,
}

/// A resource that an agent refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: String,
}

/// One node as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberRow {
    /// The node.
    pub node: String,
    /// Its agent's program and version, as it says.
    pub agent: String,
    /// Seconds since the stream was opened.
    pub connected_seconds: u64,
    /// Everything sent was acknowledged.
    pub in_sync: bool,
    /// By resource type.
    pub types: Vec<TypeRow>,
}

/// Something wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file, or the object's own place.
    pub origin: String,
    /// The object, `Kind namespace/name`, if it could be read that far.
    pub object: String,
    /// The field's path.
    pub field: String,
    /// What is wrong and what was expected.
    pub message: String,
}
