//! Who holds a bearer token: the API server is asked (TokenReview, `authentication.k8s.io/v1`).
//!
//! Taken is the token of a pod of the agent's service account that is bound to that pod, has our audience, and says which node the
//! pod runs on (`authentication.kubernetes.io/node-name`, in every bound token since Kubernetes 1.29).

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};

use crate::client::Client;

/// Where a token says its node.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

/// A token that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node that its pod runs on.
    pub node: String,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server does not know it, or not for this audience.
    #[error("the API server does not accept the token: {0}")]
    Refused(String),
    /// It is somebody else's.
    #[error("the token is of {0}, which is no node agent")]
    NotAnAgent(String),
    /// It is not bound to a pod on a node.
    #[error(
        "the token says no node; expected one that is bound to a pod (a projected volume) by Kubernetes 1.29 or newer"
    )]
    NoNode,
    /// Nobody could be asked.
    #[error("the API server cannot be asked: {0}")]
    Unavailable(String),
}

/// Asks. `account` is the agents' service account as `system:serviceaccount:NAMESPACE:NAME`.
///
/// # Errors
/// [`ReviewError`].
pub async fn review(client: &Client, token: &str, audience: &str, account: &str) -> Result<NodeIdentity, ReviewError> {
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
    let question = TokenReview { spec, ..TokenReview::default() };
    let answer = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &question).await;
    let answer = answer.map_err(|error| ReviewError::Unavailable(error.to_string()))?;
    judge(answer.status.unwrap_or_default(), audience, account)
}

fn judge(status: TokenReviewStatus, audience: &str, account: &str) -> Result<NodeIdentity, ReviewError> {
    // A server that does not know audiences gives none back: then it has not looked at them.
    let meant = status.audiences.is_some_and(|audiences| audiences.iter().any(|known| known == audience));
    if status.authenticated != Some(true) || !meant {
        return Err(ReviewError::Refused(status.error.unwrap_or_else(|| format!("not for the audience '{audience}'"))));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if name != account {
        return Err(ReviewError::NotAnAgent(name));
    }
    let node = user.extra.and_then(|extra| extra.get(NODE_CLAIM)?.first().cloned());
    node.filter(|node| !node.is_empty()).map(|node| NodeIdentity { node }).ok_or(ReviewError::NoNode)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenReviewStatus;
    use serde_json::json;

    use super::{NodeIdentity, ReviewError, judge};

    const AGENT: &str = "system:serviceaccount:weft-system:weft-node-agent";

    fn status(change: impl FnOnce(&mut serde_json::Value)) -> TokenReviewStatus {
        let mut value = json!({
            "authenticated": true, "audiences": ["weft"],
            "user": { "username": AGENT, "extra": { "authentication.kubernetes.io/node-name": ["node1"] } },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_the_agents_own_bound_token_for_us_is_taken() {
        assert_eq!(judge(status(|_| ()), "weft", AGENT), Ok(NodeIdentity { node: "node1".to_owned() }));
        let refused = |change: fn(&mut serde_json::Value)| judge(status(change), "weft", AGENT).unwrap_err();
        assert!(matches!(refused(|value| value["authenticated"] = json!(false)), ReviewError::Refused(_)));
        assert!(matches!(refused(|value| value["audiences"] = json!(["api"])), ReviewError::Refused(_)));
        assert!(matches!(refused(|value| value["audiences"] = json!(null)), ReviewError::Refused(_)));
        let other = refused(|value| value["user"]["username"] = json!("system:serviceaccount:shop:web"));
        assert_eq!(other, ReviewError::NotAnAgent("system:serviceaccount:shop:web".to_owned()));
        assert_eq!(refused(|value| value["user"]["extra"] = json!({})), ReviewError::NoNode);
        assert_eq!(
            refused(|value| value["user"]["extra"] = json!({ "authentication.kubernetes.io/node-name": [""] })),
            ReviewError::NoNode
        );
    }
}
