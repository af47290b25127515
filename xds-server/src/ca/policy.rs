//! The decision on one certificate request: pure.
//!
//! A node may ask only for identities of pods that run on it, in our trust domain, and says the same in the request and beside
//! it. Whoever takes over one node gets that node's identities, and no others.

use std::time::Duration;

use weft_identity::request::{RequestError, VerifiedRequest};
use weft_model::{Reason, SpiffeId};

/// One request as it came, its caller known.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The node whose token came with it.
    pub node: &'a str,
    /// The certificate request, PEM.
    pub csr_pem: &'a str,
    /// The identity named beside the request (`ImpersonatedIdentity`), if any.
    pub impersonated: Option<&'a str>,
    /// The wished life in seconds; 0 means that the caller has no wish.
    pub validity_seconds: i64,
}

/// What may be signed.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The request, checked.
    pub request: VerifiedRequest,
    /// The wished life; the signer bounds it.
    pub ttl: Option<Duration>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request and what stands beside it name two identities.
    #[error("the request names {requested}, its metadata '{metadata}'")]
    TwoIdentities {
        /// In the request.
        requested: SpiffeId,
        /// Beside it.
        metadata: String,
    },
    /// A negative life.
    #[error("a validity of {0} s makes no sense")]
    Validity(i64),
    /// Another trust domain.
    #[error("{identity} is not of the trust domain {ours}")]
    TrustDomain {
        /// What was asked for.
        identity: SpiffeId,
        /// Ours.
        ours: String,
    },
    /// No such pod on the node.
    #[error("no pod on node {node} runs as {identity}")]
    NotOnNode {
        /// The caller.
        node: String,
        /// What was asked for.
        identity: SpiffeId,
    },
}

impl Refusal {
    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(error) => error.reason(),
            Self::TwoIdentities { .. } | Self::Validity(_) => Reason::BadCertificateRequest,
            Self::TrustDomain { .. } => Reason::TrustDomainMismatch,
            Self::NotOnNode { .. } => Reason::IdentityNotOnNode,
        }
    }
}

/// Decides. `runs_on(node, identity)` says whether a pod with the identity runs on the node.
///
/// # Errors
/// The first thing that is wrong.
pub fn decide(
    asked: &Asked<'_>,
    trust_domain: &str,
    runs_on: impl Fn(&str, &SpiffeId) -> bool,
) -> Result<Granted, Refusal> {
    let request = VerifiedRequest::from_pem(asked.csr_pem)?;
    let identity = request.identity();
    if let Some(metadata) = asked.impersonated
        && metadata != identity.to_string()
    {
        return Err(Refusal::TwoIdentities { requested: identity.clone(), metadata: metadata.to_owned() });
    }
    let seconds = u64::try_from(asked.validity_seconds).map_err(|_| Refusal::Validity(asked.validity_seconds))?;
    if identity.trust_domain() != trust_domain {
        return Err(Refusal::TrustDomain { identity: identity.clone(), ours: trust_domain.to_owned() });
    }
    if !runs_on(asked.node, identity) {
        return Err(Refusal::NotOnNode { node: asked.node.to_owned(), identity: identity.clone() });
    }
    Ok(Granted { request, ttl: (seconds > 0).then(|| Duration::from_secs(seconds)) })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use weft_identity::request::Request;

    use super::*;

    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn decide_for(
        node: &str,
        identity: &str,
        impersonated: Option<&str>,
        validity_seconds: i64,
    ) -> Result<Granted, Refusal> {
        let csr = Request::new(&identity.parse().unwrap()).unwrap().csr_pem;
        let asked = Asked { node, csr_pem: &csr, impersonated, validity_seconds };
        decide(&asked, "cluster.local", |node, id| node == "node-a" && id.namespace() == "shop")
    }

    #[rstest]
    #[case::named_twice(Some(WEB), 3600, Some(3600))]
    #[case::named_once(None, 60, Some(60))]
    #[case::no_wish(None, 0, None)]
    #[case::for_ever(None, i64::MAX, Some(i64::MAX as u64))]
    fn granted(#[case] impersonated: Option<&str>, #[case] validity: i64, #[case] ttl: Option<u64>) {
        let granted = decide_for("node-a", WEB, impersonated, validity).unwrap();
        assert_eq!(granted.request.identity().to_string(), WEB);
        assert_eq!(granted.ttl, ttl.map(Duration::from_secs));
    }

    #[rstest]
    #[case::other_node("node-b", WEB, Some(WEB), 0, Reason::IdentityNotOnNode)]
    #[case::no_node("", WEB, Some(WEB), 0, Reason::IdentityNotOnNode)]
    #[case::other_namespace("node-a", "spiffe://cluster.local/ns/bank/sa/web", None, 0, Reason::IdentityNotOnNode)]
    #[case::other_domain("node-a", "spiffe://elsewhere/ns/shop/sa/web", None, 0, Reason::TrustDomainMismatch)]
    #[case::two_identities(
        "node-a",
        WEB,
        Some("spiffe://cluster.local/ns/shop/sa/db"),
        0,
        Reason::BadCertificateRequest
    )]
    #[case::empty_metadata("node-a", WEB, Some(""), 0, Reason::BadCertificateRequest)]
    #[case::negative("node-a", WEB, None, -1, Reason::BadCertificateRequest)]
    fn refused(
        #[case] node: &str,
        #[case] identity: &str,
        #[case] impersonated: Option<&str>,
        #[case] validity: i64,
        #[case] reason: Reason,
    ) {
        let refusal = decide_for(node, identity, impersonated, validity).unwrap_err();
        assert_eq!(refusal.reason(), reason, "{refusal}");
    }

    #[test]
    fn a_bad_request_is_refused_before_anything_is_looked_up() {
        let asked = Asked { node: "node-a", csr_pem: "junk", impersonated: Some(WEB), validity_seconds: 0 };
        let refusal = decide(&asked, "cluster.local", |_, _| panic!("not asked")).unwrap_err();
        assert_eq!(refusal.reason(), Reason::BadCertificateRequest);
    }
}
