//! The key of a service, apart from the service itself: workloads, gateways and policies name services by it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// `namespace/hostname`: the key of a service on the wire.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The full host name, for example `cart.shop.svc.cluster.local`.
    pub hostname: Arc<str>,
}

/// A text that is not `namespace/hostname`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form NAMESPACE/HOSTNAME")]
pub struct ServiceKeyError(String);

impl ServiceKey {
    /// A key of its parts.
    #[must_use]
    pub fn new(namespace: &str, hostname: &str) -> Self {
        Self { namespace: namespace.into(), hostname: hostname.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = ServiceKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once('/') {
            Some((namespace, hostname)) if !namespace.is_empty() && !hostname.is_empty() && !hostname.contains('/') => {
                Ok(Self::new(namespace, hostname))
            }
            _ => Err(ServiceKeyError(text)),
        }
    }
}
