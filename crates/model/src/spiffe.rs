//! SPIFFE identities as the mesh uses them: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
//!
//! The parser is strict on purpose: an identity decides who may speak to whom, so there is exactly one spelling of
//! each (SPIFFE-ID specification, section 2; Istio's five-part path).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One workload identity. Two pods with the same service account share it.
///
/// Copied several times for each connection (pool key, policy check, record), so a copy is one pointer and one count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffeId(Arc<Parts>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    trust_domain: Box<str>,
    namespace: Box<str>,
    service_account: Box<str>,
}

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// The text does not have the five parts.
    #[error("'{0}' is not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
    Shape(String),
    /// One part is empty, too long or has a character that SPIFFE does not allow.
    #[error("the {part} '{value}' of a SPIFFE identity must be 1 to {limit} of the characters {allowed}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What was given.
        value: String,
        /// How long it may be, in bytes.
        limit: usize,
        /// What it may be made of.
        allowed: &'static str,
    },
}

/// SPIFFE-ID specification, section 2.1: a trust domain has at most 255 bytes.
const TRUST_DOMAIN_LIMIT: usize = 255;
/// Kubernetes names (RFC 1123 subdomains) have at most 253 bytes.
const NAME_LIMIT: usize = 253;

impl SpiffeId {
    /// Makes an identity of its parts.
    ///
    /// # Errors
    /// Names the part that is empty, too long or has a forbidden character.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        let lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        let segment = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        check("trust domain", trust_domain, TRUST_DOMAIN_LIMIT, "a-z 0-9 . _ -", lower)?;
        check("namespace", namespace, NAME_LIMIT, "a-z A-Z 0-9 . _ -", segment)?;
        check("service account", service_account, NAME_LIMIT, "a-z A-Z 0-9 . _ -", segment)?;
        Ok(Self(Arc::new(Parts {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })))
    }

    /// The trust domain, for example `cluster.local`.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.0.service_account
    }

    /// The identity without `spiffe://`: the form that policies compare (`istio.security.Authorization` principals).
    #[must_use]
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.0.trust_domain, self.0.namespace, self.0.service_account)
    }
}

fn check(
    part: &'static str,
    value: &str,
    limit: usize,
    allowed: &'static str,
    good: impl Fn(u8) -> bool,
) -> Result<(), SpiffeError> {
    let dots_only = value == "." || value == "..";
    if value.is_empty() || value.len() > limit || dots_only || !value.bytes().all(good) {
        return Err(SpiffeError::Part { part, value: value.to_owned(), limit, allowed });
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || SpiffeError::Shape(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(shape)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [trust_domain, "ns", namespace, "sa", account] => Self::new(trust_domain, namespace, account),
            _ => Err(shape()),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.0.trust_domain, self.0.namespace, self.0.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};
    use rstest::rstest;

    use super::SpiffeId;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(domain in "[a-z0-9][a-z0-9.-]{0,30}", ns in "[a-z0-9][a-z0-9-]{0,20}", sa in "[a-z0-9][a-z0-9.-]{0,20}") {
            let id = SpiffeId::new(&domain, &ns, &sa).unwrap();
            prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }

        #[test]
        fn no_text_panics_and_what_parses_is_canonical(text in ".{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[rstest]
    #[case("")]
    #[case("spiffe://")]
    #[case("spiffe://td/ns/a/sa")]
    #[case("spiffe://td/ns/a/sa/")]
    #[case("spiffe://td/ns/a/sa/b/")]
    #[case("spiffe://td/ns/a/sa/b?x")]
    #[case("spiffe://td/ns/a/sa/b#x")]
    #[case("spiffe://td:443/ns/a/sa/b")]
    #[case("spiffe://u@td/ns/a/sa/b")]
    #[case("SPIFFE://td/ns/a/sa/b")]
    #[case("spiffe://TD/ns/a/sa/b")]
    #[case("spiffe://td/ns/../sa/b")]
    #[case("spiffe://td/ns/%61/sa/b")]
    fn refused(#[case] text: &str) {
        assert!(text.parse::<SpiffeId>().is_err(), "{text}");
    }
}
