//! Options that say who is asked.

use clap::Args;

use super::address::{parse_address, parse_pod};
use crate::cluster::options::ClusterOptions;

/// Who is asked.
///
/// Without any of these: the programs of the cluster of your kubeconfig, through its API server; where there is no kubeconfig, the agent
/// of this machine.
#[derive(Debug, Clone, Args)]
pub struct ProgramOptions {
    /// One program by its admin address: agents have 127.0.0.1:15000, the server 127.0.0.1:15014. Wins over what follows.
    /// Without it: the cluster of your kubeconfig; where there is none, the agent of this machine.
    #[arg(long, short = 'a', env = "WEFT_ADMIN", value_name = "HOST:PORT", value_parser = parse_address)]
    pub admin: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// The agent of this node of the cluster.
    #[arg(long, value_name = "NODE", conflicts_with_all = ["pod", "server"])]
    pub node: Option<String>,
    /// The agent of the node on which this pod runs; of pods and connections, its own alone.
    #[arg(long, value_name = "NAMESPACE/POD", conflicts_with = "server", value_parser = parse_pod)]
    pub pod: Option<(String, String)>,
    /// The control plane of the cluster rather than agents.
    #[arg(long)]
    pub server: bool,
}

impl ProgramOptions {
    /// Whether something says that a cluster is meant.
    #[must_use]
    pub fn names_a_cluster(&self) -> bool {
        let which = &self.cluster;
        which.kubeconfig.is_some()
            || which.context.is_some()
            || self.node.is_some()
            || self.pod.is_some()
            || self.server
    }

    /// Whether a row about these pods (`NAMESPACE/NAME`) is wanted: without `--pod` every one is.
    pub fn wants_pod<'a>(&self, pods: impl IntoIterator<Item = &'a str>) -> bool {
        let Some((namespace, name)) = &self.pod else { return true };
        pods.into_iter().any(|pod| pod.split_once('/') == Some((namespace, name)))
    }
}
