//! What a program has to show and what it can be told to do: sections and actions, registered by the parts that own them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use crate::logging;
use crate::metrics::Registry;
use crate::readiness::Readiness;

/// How long a section may take. It asks workers that answer within one turn of their loop; one that needs longer is stuck,
/// and a person looking for what is stuck must still get the other sections.
const SECTION_DEADLINE: Duration = Duration::from_secs(5);

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Section = Arc<dyn Fn() -> Answer<Value> + Send + Sync>;
type Action = Arc<dyn Fn(ActionRequest) -> Answer<Result<Value, ActionError>> + Send + Sync>;

/// The admin pages of one program. Build it with everything registered, then [`serve`](Admin::serve) it on as many
/// listeners as needed (it is cheap to clone).
#[derive(Clone)]
pub struct Admin {
    pub(super) readiness: Readiness,
    pub(super) registry: Registry,
    sections: BTreeMap<String, Section>,
    actions: BTreeMap<String, Action>,
}

impl Admin {
    /// Health and metrics, nothing else yet.
    pub fn new(readiness: Readiness, registry: Registry) -> Self {
        Self { readiness, registry, sections: BTreeMap::new(), actions: BTreeMap::new() }
    }

    /// Shows `/debug/NAME`; the closure is called for every request. A section registered again replaces the first.
    #[must_use]
    pub fn section(self, name: &str, show: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.section_async(name, move || std::future::ready(show()))
    }

    /// As [`section`](Self::section) for one that must ask somebody else first, such as a data worker. After five seconds
    /// without an answer the page says so.
    #[must_use]
    pub fn section_async<F, Fut>(mut self, name: &str, show: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Value> + Send + 'static,
    {
        self.sections.insert(name.to_owned(), Arc::new(move || Box::pin(show())));
        self
    }

    /// Obeys `POST /NAME`. The answer is shown as JSON. An action registered again replaces the first.
    #[must_use]
    pub fn action<F, Fut>(mut self, name: &str, act: F) -> Self
    where
        F: Fn(ActionRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, ActionError>> + Send + 'static,
    {
        self.actions.insert(name.to_owned(), Arc::new(move |request| Box::pin(act(request))));
        self
    }

    /// Obeys `POST /logging?level=FILTER`; without `level` it answers the filter in force.
    #[must_use]
    pub fn logging(self, handle: logging::Handle) -> Self {
        self.action("logging", move |request| {
            let changed = match request.parameters.get("level") {
                Some(filter) => handle.set(filter),
                None => Ok(()),
            };
            let answer = changed
                .and_then(|()| handle.filter())
                .map(|filter| json!({ "level": filter }))
                .map_err(|error| ActionError::Request(error.to_string()));
            std::future::ready(answer)
        })
    }

    /// Names of the sections.
    pub(super) fn section_names(&self) -> Vec<&str> {
        self.sections.keys().map(String::as_str).collect()
    }

    /// Names of the actions.
    pub(super) fn action_names(&self) -> Vec<&str> {
        self.actions.keys().map(String::as_str).collect()
    }

    /// One section's value, `None` when there is no such section, `Some(Err(..))` when it did not answer in time.
    pub(super) async fn show(&self, name: &str) -> Option<Result<Value, String>> {
        let section = self.sections.get(name)?.clone();
        let late = |_| format!("section {name} did not answer within {} s", SECTION_DEADLINE.as_secs());
        Some(tokio::time::timeout(SECTION_DEADLINE, section()).await.map_err(late))
    }

    /// All sections; one that is stuck shows its error instead and does not hold up the rest.
    pub(super) async fn show_all(&self) -> Value {
        let shown = self.sections.keys().map(async |name| {
            let value = match self.show(name).await {
                Some(Ok(value)) => value,
                Some(Err(error)) => json!({ "error": error }),
                None => Value::Null,
            };
            (name.clone(), value)
        });
        Value::Object(futures_util::future::join_all(shown).await.into_iter().collect())
    }

    /// Runs one action, `None` when there is no such action.
    pub(super) async fn act(&self, name: &str, request: ActionRequest) -> Option<Result<Value, ActionError>> {
        let action = self.actions.get(name)?.clone();
        Some(action(request).await)
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sections, actions) = (self.section_names(), self.action_names());
        formatter.debug_struct("Admin").field("sections", &sections).field("actions", &actions).finish_non_exhaustive()
    }
}

/// What an action is given.
#[derive(Debug, Clone, Default)]
pub struct ActionRequest {
    /// The query, decoded; of a repeated name the last one.
    pub parameters: BTreeMap<String, String>,
    /// The request's body, at most [64 KiB](super::serve).
    pub body: Vec<u8>,
}

/// An action did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ActionError {
    /// The request makes no sense (status 400): the text says what would.
    #[error("{0}")]
    Request(String),
    /// It could not be done (status 500): the text says why.
    #[error("{0}")]
    Failed(String),
}
