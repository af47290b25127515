//! The command line and environment: the only place where settings are read. Every default stands with its reason.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use weft_model::workload::{DEFAULT_CLUSTER, DEFAULT_TRUST_DOMAIN};

pub use weft_manifest::Source;

use crate::translate::MeshSettings;

/// Weft's control plane: reads Kubernetes objects, programs every node, issues certificates.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "weft-xds-server",
    version,
    after_help = "Example:\n  weft-xds-server --source dir:/etc/weft/cluster --state-dir /var/lib/weft --node-tokens /etc/weft/node-tokens\n\nThe file of node tokens has one line per node: NODE TOKEN\n\n`weft-xds-server rotate-root --help`: a new root certificate without a restart"
)]
pub struct Arguments {
    /// Where the objects are: `kubernetes` watches the API server of the cluster that this program runs in (or of $KUBECONFIG,
    /// or of `kubernetes:KUBECONFIG`), `dir:PATH` a directory of Kubernetes YAML.
    #[arg(long, env = "WEFT_SOURCE", value_name = "kubernetes | dir:PATH")]
    pub source: Source,
    /// Holds what must survive a restart: the root of the certificate authority (unless given) and which pods are
    /// captured. Created if missing, for this user only.
    #[arg(long, env = "WEFT_STATE_DIR", default_value = "/var/lib/weft", value_name = "PATH")]
    pub state_dir: PathBuf,
    /// With a directory: lines `NODE TOKEN`, who may open a stream for which node. Read again when it changes.
    #[arg(long, env = "WEFT_NODE_TOKENS", value_name = "FILE")]
    pub node_tokens: Option<PathBuf>,
    /// With Kubernetes: the service account of the node agents. Bound tokens of its pods are taken, each for its pod's node.
    #[arg(long, default_value = "weft-system/weft-node-agent", value_name = "NAMESPACE/NAME")]
    pub agent_account: String,
    /// With Kubernetes: the audience that those tokens must have.
    #[arg(long, default_value = "weft", value_name = "NAME")]
    pub token_audience: String,
    /// With Kubernetes: the namespace of this program, which holds the secret of the certificate authority.
    #[arg(long, env = "POD_NAMESPACE", default_value = "weft-system", value_name = "NAMESPACE")]
    pub namespace: String,
    /// With Kubernetes: the name of this program's pod, by which replicas tell each other apart.
    #[arg(long, env = "POD_NAME", default_value = "weft-xds-server-0", value_name = "NAME")]
    pub pod_name: String,
    /// With Kubernetes: the uid of that pod. What this replica tells the others goes with it.
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// Where agents come to (discovery and certificates).
    #[arg(long, default_value = "[::]:15012", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Admin pages, metrics and health.
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "ADDRESS")]
    pub admin: SocketAddr,
    /// Health and metrics alone, for a kubelet and Prometheus on other machines.
    #[arg(long, value_name = "ADDRESS")]
    pub health: Option<SocketAddr>,
    /// More names or addresses for the server's own certificate; may be given several times.
    #[arg(long = "server-name", value_name = "NAME")]
    pub server_names: Vec<String>,
    /// Root certificate (PEM) of your own certificate authority; needs --ca-key.
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// Private key (PEM, PKCS#8) of --ca-cert.
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// More roots (PEM) that peers shall accept beside that of --ca-cert: the next one before it signs, the last one
    /// after. Like --ca-cert and --ca-key read again when it changes.
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_roots: Option<PathBuf>,
    /// The longest life of a workload certificate, and what is given when none is asked for.
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub certificate_life: Duration,
    /// Trust domain of the mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN, value_name = "DOMAIN")]
    pub trust_domain: String,
    /// Id of the cluster: the first part of its pods' uids.
    #[arg(long, env = "CLUSTER_ID", default_value = DEFAULT_CLUSTER, value_name = "ID")]
    pub cluster: String,
    /// Network of the cluster; empty is the default network.
    #[arg(long, env = "NETWORK", default_value = "", value_name = "NAME")]
    pub network: String,
    /// DNS domain of the cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// How long open streams may go on after SIGTERM. Agents keep what they have and come back by themselves.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub drain_deadline: Duration,
    /// What to log: a level, or `target=level` pairs.
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How to log.
    #[arg(long, env = "WEFT_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

impl Arguments {
    /// What all resources have in common.
    #[must_use]
    pub fn mesh(&self) -> MeshSettings {
        MeshSettings {
            cluster: self.cluster.as_str().into(),
            trust_domain: self.trust_domain.as_str().into(),
            network: self.network.as_str().into(),
            cluster_domain: self.cluster_domain.as_str().into(),
        }
    }

    /// Names that agents may know the server by: its Kubernetes names, this machine, and what was given.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        let service = "weft-xds-server.weft-system";
        let mut names = vec![
            format!("{service}.svc"),
            format!("{service}.svc.{}", self.cluster_domain),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        names.extend(self.server_names.iter().cloned());
        names
    }
}

/// Makes the next root certificate of a server that runs on the same state directory.
///
/// The server does the rest, without a restart of anything: first every node learns the new root, then it signs, and at last
/// the old one is forgotten. Each of the two steps takes the longest life of a certificate and a quarter.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-xds-server rotate-root", version)]
pub struct RotateArguments {
    /// The state directory of the server.
    #[arg(long, env = "WEFT_STATE_DIR", default_value = "/var/lib/weft", value_name = "PATH")]
    pub state_dir: PathBuf,
    /// Trust domain of the mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN, value_name = "DOMAIN")]
    pub trust_domain: String,
    /// Only says where a rotation is.
    #[arg(long)]
    pub status: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for weft_runtime::logging::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Arguments, Source};

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_minimal_line_and_its_names() {
        let words = "weft-xds-server --source dir:/x --node-tokens /t --listen 10.0.0.1:15012 --server-name cp.example";
        let arguments = Arguments::parse_from(words.split(' '));
        assert_eq!(arguments.source, Source::Directory("/x".into()));
        let names = arguments.serving_names();
        for name in ["weft-xds-server.weft-system.svc", "10.0.0.1", "cp.example", "127.0.0.1"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn a_key_needs_its_certificate() {
        let words = "weft-xds-server --source dir:/x --node-tokens /t --ca-key /k";
        assert!(Arguments::try_parse_from(words.split(' ')).is_err());
    }
}
