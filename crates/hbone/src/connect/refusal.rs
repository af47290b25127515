//! Why a server did not open the tunnel: a status that every peer understands, and a reason that ours do.

/// The statuses that an HBONE server refuses with (`docs/hbone.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 400: not CONNECT, an authority that does not parse, or one that is not this pod's.
    Malformed,
    /// 401: policy says no.
    Denied,
    /// 503: the pod is unknown, the target port cannot be resolved, or the application did not accept.
    Unavailable,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Denied => 401,
            Self::Unavailable => 503,
        }
    }
}
