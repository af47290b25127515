//! How to reach the control plane. Any server that speaks this wire will do: the
//! defaults are for ours, and the names of the environment variables are ztunnel's where it has one.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// How to reach the control plane.
#[derive(Debug, Clone, Args)]
pub struct ControlPlaneOptions {
    /// The discovery server.
    #[arg(
        long,
        env = "XDS_ADDRESS",
        default_value = "weft-xds-server.weft-system.svc:15012",
        value_name = "HOST:PORT"
    )]
    pub xds_address: Endpoint,
    /// Name that the discovery server's certificate must have, if it is not the host of its address.
    #[arg(long, env = "ALT_XDS_HOSTNAME", value_name = "NAME")]
    pub xds_server_name: Option<String>,
    /// Roots (PEM) that the discovery server's certificate must chain to. Read again for each connection.
    #[arg(long, env = "XDS_ROOT_CA", default_value = "/var/run/secrets/weft/root-cert.pem", value_name = "FILE")]
    pub roots: PathBuf,
    /// The certificate authority; the discovery server if not given.
    #[arg(long, env = "CA_ADDRESS", value_name = "HOST:PORT")]
    pub ca_address: Option<Endpoint>,
    /// Name that the certificate authority's certificate must have.
    #[arg(long, env = "ALT_CA_HOSTNAME", value_name = "NAME")]
    pub ca_server_name: Option<String>,
    /// Roots (PEM) of the certificate authority's certificate; those of the discovery server if not given.
    #[arg(long, env = "CA_ROOT_CA", value_name = "FILE")]
    pub ca_roots: Option<PathBuf>,
    /// File with this node's token. Read again for each request.
    #[arg(long, env = "AUTH_TOKEN", default_value = "/var/run/secrets/weft/token", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Speak plain TCP to the control plane. Only for tests and for a server behind something that encrypts.
    #[arg(long)]
    pub control_plane_plaintext: bool,
    /// Id of the cluster: the first part of its pods' uids.
    #[arg(long, env = "CLUSTER_ID", default_value = weft_model::workload::DEFAULT_CLUSTER, value_name = "ID")]
    pub cluster: String,
    /// Network of this node; empty is the default network.
    #[arg(long, env = "NETWORK", default_value = "", value_name = "NAME")]
    pub network: String,
    /// Trust domain of the mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = weft_model::workload::DEFAULT_TRUST_DOMAIN, value_name = "DOMAIN")]
    pub trust_domain: String,
    /// DNS domain of the cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Name of this agent's own pod; the node's name if there is none.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// Namespace of this agent's own pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "weft-system", value_name = "NAMESPACE")]
    pub pod_namespace: String,
    /// Address of this agent.
    #[arg(long, env = "INSTANCE_IP", default_value = "1.1.1.1", value_name = "IP")]
    pub instance_ip: std::net::IpAddr,
    /// One more word of node metadata; may be given several times.
    #[arg(long = "node-metadata", value_name = "NAME=VALUE")]
    pub metadata: Vec<KeyValue>,
    /// One more header for the control plane; may be given several times.
    #[arg(long = "control-plane-header", value_name = "NAME=VALUE")]
    pub headers: Vec<KeyValue>,
}

/// `HOST:PORT`, with an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not HOST:PORT, for example 10.0.0.1:15012 or [fd00::1]:15012")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || EndpointError(text.to_owned());
        // Istio writes addresses with a scheme.
        let plain = text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let (host, port) = plain.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the first `=`.
    pub name: String,
    /// Behind it.
    pub value: String,
}

/// A text that is not `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not NAME=VALUE")]
pub struct KeyValueError(String);

impl FromStr for KeyValue {
    type Err = KeyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => Err(KeyValueError(text.to_owned())),
        }
    }
}
