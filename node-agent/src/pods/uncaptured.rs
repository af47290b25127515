//! Pods that should be captured and are not: what every part says of them. Pure values.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::PodUid;

/// Why a selected pod is not captured, as metrics label it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UncapturedReason {
    /// Nobody said which network namespace is its own.
    Unplaced,
    /// Its network namespace cannot be entered.
    Namespace,
    /// The network namespace that is named is not proven to be its own.
    WrongNamespace,
    /// A program of the pod holds the port of tunnels.
    HbonePortTaken,
    /// Its listeners cannot be made.
    Sockets,
    /// Its rules or routes cannot be put in.
    Rules,
    /// The connections that it has cannot be read or reset.
    Connections,
}

impl UncapturedReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unplaced,
        Self::Namespace,
        Self::WrongNamespace,
        Self::HbonePortTaken,
        Self::Sockets,
        Self::Rules,
        Self::Connections,
    ];

    /// The word in metrics and pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unplaced => "unplaced",
            Self::Namespace => "namespace",
            Self::WrongNamespace => "wrong-namespace",
            Self::HbonePortTaken => "hbone-port-taken",
            Self::Sockets => "sockets",
            Self::Rules => "rules",
            Self::Connections => "connections",
        }
    }
}

impl fmt::Display for UncapturedReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// One such pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uncaptured {
    /// Which pod.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: UncapturedReason,
    /// The guards stand, so nothing goes in or out. False: it talks in plaintext.
    pub closed: bool,
}
