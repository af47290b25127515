//! Who calls: made from the bearer token once, before anything else of a request is read.

use std::net::SocketAddr;
use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use weft_model::Reason;
use weft_wire::refusal::refuse;

/// A node that proved who it is. Only an [`Authenticate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The node's name.
    pub node: Arc<str>,
}

/// Proves who calls: by a file of tokens, or by asking Kubernetes (TokenReview).
#[tonic::async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The caller with this bearer token.
    ///
    /// # Errors
    /// Why there is none.
    async fn authenticate(&self, bearer: Option<&str>) -> Result<Caller, Reason>;
}

/// The bearer token of a request (RFC 6750 section 2.1; the scheme's case does not matter, RFC 9110 section 11.1).
fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// For every request, before anything of it is read: the caller, or its refusal.
pub(super) async fn identify(
    authenticate: &dyn Authenticate,
    metadata: &MetadataMap,
    from: Option<SocketAddr>,
) -> Result<Caller, Status> {
    authenticate.authenticate(bearer(metadata)).await.map_err(|reason| {
        let from = from.map(|address| address.to_string()).unwrap_or_default();
        tracing::warn!(reason = reason.code(), from, "a caller is refused");
        refuse(reason, "the control plane does not know the bearer token, or there is none")
    })
}

/// The caller of an authenticated request. `ca` asks here, too.
///
/// # Errors
/// The request did not pass the gate; it is refused rather than believed.
pub fn caller_of(extensions: &Extensions) -> Result<Caller, Status> {
    let nobody = || refuse(Reason::Unauthenticated, "the caller is not known");
    extensions.get::<Caller>().cloned().ok_or_else(nobody)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tonic::metadata::MetadataMap;

    use super::bearer;

    #[rstest]
    #[case("Bearer abc", Some("abc"))]
    #[case("bearer  abc ", Some("abc"))]
    #[case("Bearer ", None)]
    #[case("Bearer", None)]
    #[case("Basic abc", None)]
    #[case("", None)]
    fn tokens_in_headers(#[case] header: &str, #[case] expected: Option<&str>) {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", header.parse().unwrap());
        assert_eq!(bearer(&metadata), expected);
        assert_eq!(bearer(&MetadataMap::new()), None);
    }
}
