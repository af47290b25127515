//! What `weft check` looks at, as values. What could not be asked for is an error in words, which is a finding of its own.

use std::time::SystemTime;

use weft_kubernetes::rotation::Rotation;
use weft_model::view::{CertificateRow, ConfigView, PodRow};

use crate::cluster::pods::Row;
use crate::programs::choose::Program;

/// An answer, or why there is none.
pub type Asked<T> = Result<T, String>;

/// A cluster with Weft.
#[derive(Debug)]
pub struct Seen {
    /// When.
    pub now: SystemTime,
    /// The version of this program.
    pub version: String,
    /// The API server's version.
    pub kubernetes: String,
    /// What is installed that is not there, or not as it shall be.
    pub installed: Installed,
    /// What this user has no right to look at.
    pub forbidden: Vec<String>,
    /// Why no program can be asked: this user may not reach their ports.
    pub no_ports: Option<String>,
    /// Replicas of the control plane, by pod, and what they say.
    pub servers: Vec<(Program, Asked<ConfigView>)>,
    /// Who leads.
    pub leader: Leader,
    /// The root's rotation; none without a Secret.
    pub rotation: Asked<Option<Rotation>>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Every pod, as Kubernetes has them.
    pub pods: Vec<Row>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// Who holds the Lease, and how long ago that was renewed, in seconds.
    Holds(String, u64),
    /// Nobody.
    Nobody,
    /// It cannot be known.
    Unknown,
}

/// Objects that are installed.
#[derive(Debug, Default)]
pub struct Installed {
    /// How many there should be.
    pub count: usize,
    /// Those that are not there.
    pub absent: Vec<String>,
    /// Deployments and DaemonSets that are not rolled out: which, and what is missing.
    pub unfinished: Vec<(String, String)>,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Kubernetes says that it is ready.
    pub ready: bool,
    /// The DaemonSet wants an agent there.
    pub wanted: bool,
    /// Its agent.
    pub agent: Option<Agent>,
    /// kube-proxy's mode, if it can be known.
    pub proxy: Option<String>,
}

/// A node's agent, and what it says.
#[derive(Debug)]
pub struct Agent {
    /// Its pod.
    pub program: Program,
    /// Settings, version, connection.
    pub config: Asked<ConfigView>,
    /// Certificates.
    pub certificates: Asked<Vec<CertificateRow>>,
    /// Pods.
    pub pods: Asked<Vec<PodRow>>,
    /// The CNI plugin.
    pub plugin: Plugin,
}

/// The CNI plugin of a node, by the last word of the container that keeps it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// In this file, behind the primary plugin.
    Chained(String),
    /// Not there: why.
    Missing(String),
    /// Agents without it.
    Unwanted,
    /// It cannot be known: why.
    Unknown(String),
}

impl Plugin {
    /// Out of the log of `weft-node-agent cni-install`: its last line that says something decides.
    #[must_use]
    pub fn of_log(log: &str) -> Self {
        let said = |line: &str| match (line.split_once(CHAINED), line.split_once(" WARN ")) {
            (Some((before, _)), _) => before.split_whitespace().last().map(|path| Self::Chained(path.to_owned())),
            (None, Some((_, words))) => {
                let words = words.split_once(": ").map_or(words, |(_module, words)| words);
                Some(Self::Missing(words.trim().to_owned()))
            }
            (None, None) => None,
        };
        log.lines().rev().find_map(said).unwrap_or_else(|| Self::Unknown("its container has not said so".to_owned()))
    }
}

/// What `weft-node-agent cni-install` says when new pods wait for their capture (`node-agent/src/cni/install.rs`).
const CHAINED: &str = ": new pods wait for their capture";

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Plugin;

    const CHAINED: &str = "2026-11-23T09:00:00Z  INFO weft_node_agent::cni::install: /etc/cni/net.d/10-a.conflist: new pods wait for their \
                           capture from now on";
    const BARE: &str = "2026-11-23T09:00:01Z  WARN weft_node_agent::cni::install: /etc/cni/net.d has no CNI configuration yet: the primary CNI plugin writes one";

    #[rstest]
    #[case::never("", Plugin::Unknown("its container has not said so".to_owned()))]
    #[case::there(CHAINED, Plugin::Chained("/etc/cni/net.d/10-a.conflist".to_owned()))]
    #[case::lost(
        &format!("{CHAINED}\n{BARE}\n"),
        Plugin::Missing("/etc/cni/net.d has no CNI configuration yet: the primary CNI plugin writes one".to_owned()),
    )]
    #[case::back(&format!("{BARE}\n{CHAINED}\n"), Plugin::Chained("/etc/cni/net.d/10-a.conflist".to_owned()))]
    fn where_the_plugin_is(#[case] log: &str, #[case] expected: Plugin) {
        assert_eq!(Plugin::of_log(log), expected);
    }
}
