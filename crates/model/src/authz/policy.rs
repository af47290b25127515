//! What a policy says. Mirrors `istio.security.Authorization` (`crates/wire/proto/istio/security.proto`).

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::pattern::StringMatch;

/// `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PolicyKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// A text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form NAMESPACE/NAME")]
pub struct PolicyKeyError(String);

impl PolicyKey {
    /// A key of its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for PolicyKey {
    type Err = PolicyKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !name.is_empty() && !name.contains('/') => Ok(Self::new(namespace, name)),
            _ => Err(PolicyKeyError(text.to_owned())),
        }
    }
}

impl From<PolicyKey> for String {
    fn from(key: PolicyKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PolicyKey {
    type Error = PolicyKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Which workloads a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// Only workloads that name it.
    Selected,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Permit.
    Allow,
    /// Refuse; read before every Allow.
    Deny,
}

/// Whether the verdict counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It is evaluated and counted only.
    Shadow,
}

/// One policy. Its groups are or'ed; a policy without group never matches (so an Allow without is default-deny).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its key.
    pub key: PolicyKey,
    /// For whom.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// Whether it counts.
    pub mode: Mode,
    /// The alternatives.
    pub groups: Vec<Group>,
}

/// Rules that must all match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Matches of which one must hold; a rule without any holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// The alternatives.
    pub matches: Vec<Match>,
}

/// Conditions that must all hold: in each positive list one value, in each negative list none.
/// A wholly empty match never holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    /// The client's namespace.
    pub namespaces: Vec<StringMatch>,
    /// Not these.
    pub not_namespaces: Vec<StringMatch>,
    /// The client's identity without `spiffe://`.
    pub principals: Vec<StringMatch>,
    /// Not these.
    pub not_principals: Vec<StringMatch>,
    /// The client's service account.
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// Not these.
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// The client's address.
    pub source_ips: Vec<IpNet>,
    /// Not these.
    pub not_source_ips: Vec<IpNet>,
    /// The destination's address.
    pub destination_ips: Vec<IpNet>,
    /// Not these.
    pub not_destination_ips: Vec<IpNet>,
    /// The destination's port, after resolution.
    pub destination_ports: Vec<u16>,
    /// Not these.
    pub not_destination_ports: Vec<u16>,
}

impl Match {
    /// Whether it has no condition at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceAccountMatch {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}
