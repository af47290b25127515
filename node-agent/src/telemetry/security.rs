//! How a connection is protected: the word in log, table and metric.

/// How the bytes travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// Inside a mutually authenticated tunnel.
    MutualTls,
    /// On one node between two captured pods: authenticated by the kernel's namespaces, never on a wire.
    SameNode,
    /// As the application sent it.
    Plaintext,
}

impl Security {
    /// Istio's `connection_security_policy` label. A same-node connection is authenticated on both sides and is shown
    /// as mutual TLS would be, so that "is everything protected?" dashboards answer right.
    #[must_use]
    pub const fn istio_label(self) -> &'static str {
        match self {
            Self::MutualTls | Self::SameNode => "mutual_tls",
            Self::Plaintext => "unknown",
        }
    }

    /// The word in the access log and in `weft connections`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::MutualTls => "mtls",
            Self::SameNode => "same-node",
            Self::Plaintext => "plaintext",
        }
    }
}
