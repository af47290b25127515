//! What of a cluster is watched.

use weft_manifest::Kind;

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything: for the control plane.
    Cluster,
    /// The pods of one node, and all namespaces: for that node's capture half.
    Node(String),
}

impl Scope {
    /// The kinds that count.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        match self {
            Self::Cluster => Kind::ALL.to_vec(),
            Self::Node(_) => vec![Kind::Namespace, Kind::Pod],
        }
    }
}
