//! Nodes by the bound tokens of their agents, which the API server knows (TokenReview).
//!
//! An answer counts for a while: an agent asks for each of its pods' certificates, and the API server should not be asked as often. A
//! pod that is gone can be impersonated for as long by whoever has its token, for its own node only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_kubernetes::{Client, ReviewError, review};
use weft_model::Reason;

use super::caller::{Authenticate, Caller};

/// How long an answer counts. Kubernetes' own webhooks keep one for 2 minutes; the kubelet renews a token after 80 % of its life.
const ANSWER_LIFE: Duration = Duration::from_secs(30);
/// Answers that are kept: one for each node, and some for tokens that were renewed.
const ANSWERS: usize = 20_000;

/// Asks the API server, and remembers.
pub struct ReviewedTokens {
    client: Client,
    audience: String,
    account: String,
    answers: Mutex<HashMap<String, (Caller, Instant)>>,
}

impl std::fmt::Debug for ReviewedTokens {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReviewedTokens").field("account", &self.account).finish_non_exhaustive()
    }
}

impl ReviewedTokens {
    /// Takes tokens of `account` (`NAMESPACE/NAME`) for `audience`.
    #[must_use]
    pub fn new(client: Client, audience: &str, account: &str) -> Self {
        let account = format!("system:serviceaccount:{}", account.replacen('/', ":", 1));
        Self { client, audience: audience.to_owned(), account, answers: Mutex::default() }
    }

    fn remembered(&self, token: &str, now: Instant) -> Option<Caller> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, until) = answers.get(token)?;
        if *until > now {
            return Some(caller.clone());
        }
        answers.remove(token);
        None
    }

    fn remember(&self, token: &str, caller: &Caller, now: Instant) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (_, until)| *until > now);
        }
        if answers.len() < ANSWERS {
            answers.insert(token.to_owned(), (caller.clone(), now + ANSWER_LIFE));
        }
    }
}

#[tonic::async_trait]
impl Authenticate for ReviewedTokens {
    async fn authenticate(&self, bearer: Option<&str>) -> Result<Caller, Reason> {
        let token = bearer.ok_or(Reason::Unauthenticated)?;
        let now = Instant::now();
        if let Some(caller) = self.remembered(token, now) {
            return Ok(caller);
        }
        match review(&self.client, token, &self.audience, &self.account).await {
            Ok(identity) => {
                let caller = Caller { node: Arc::from(identity.node) };
                self.remember(token, &caller, now);
                Ok(caller)
            }
            Err(error) => {
                match &error {
                    ReviewError::Unavailable(_) => tracing::error!(%error, "a caller cannot be known"),
                    _ => tracing::warn!(%error, "a token is not taken"),
                }
                Err(Reason::Unauthenticated)
            }
        }
    }
}
