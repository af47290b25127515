//! The status conditions of AuthorizationPolicies: read, compared, and written where they differ (server-side apply on `status`).

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::client::Client;

const MANAGER: &str = "weft-xds-server";
/// Kind and version of what is written.
pub const API_VERSION: &str = "weft.dev/v1alpha1";
/// See [`API_VERSION`].
pub const KIND: &str = "AuthorizationPolicy";
/// Bytes of a message: the API would take 32 KiB, and nobody reads them.
const MESSAGE: usize = 2048;

/// The API server did not do it.
#[derive(Debug, thiserror::Error)]
#[error("the status of policies: {0}")]
pub struct StatusError(#[source] Box<kube::Error>);

/// One life of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyLife {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which life of that name.
    pub uid: String,
}

/// What a condition shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `Accepted`.
    pub name: &'static str,
    /// Whether it is so.
    pub holds: bool,
    /// One word, stable.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The conditions to write in place of those that are there; none if those say it already. The time of a condition changes only
/// when its status does.
#[must_use]
pub fn difference(there: &[Condition], wanted: &[Wanted], generation: i64, now: Timestamp) -> Option<Vec<Condition>> {
    let condition = |wanted: &Wanted| {
        let before = there.iter().find(|condition| condition.type_ == wanted.name);
        let status = if wanted.holds { "True" } else { "False" };
        let same = before.filter(|before| before.status == status);
        // Whole seconds: the API keeps no more, and what was read must equal what is wanted.
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Condition {
            last_transition_time: same.map_or(Time(second), |before| before.last_transition_time.clone()),
            message: shortened(&wanted.message),
            observed_generation: Some(generation),
            reason: wanted.reason.to_owned(),
            status: status.to_owned(),
            type_: wanted.name.to_owned(),
        }
    };
    let next: Vec<Condition> = wanted.iter().map(condition).collect();
    next.iter().any(|condition| !there.contains(condition)).then_some(next)
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE {
        return message.to_owned();
    }
    let end = (0..=MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
    format!("{} ...", message.get(..end).unwrap_or_default())
}

/// Reads and writes them.
#[derive(Clone)]
pub struct PolicyConditions {
    client: Client,
}

impl std::fmt::Debug for PolicyConditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyConditions").finish_non_exhaustive()
    }
}

impl PolicyConditions {
    /// With the rights of this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Those of all policies, as they are now.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn read(&self) -> Result<Vec<(PolicyLife, Vec<Condition>)>, StatusError> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource());
        let found = api.list(&ListParams::default()).await.map_err(|error| StatusError(Box::new(error)))?;
        Ok(found.items.iter().filter_map(conditions).collect())
    }

    /// Writes those of one policy. One that is gone, or another one of that name by now, needs none.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn write(&self, life: &PolicyLife, conditions: &[Condition]) -> Result<(), StatusError> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &life.namespace, &resource());
        let object = json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": { "name": life.name, "namespace": life.namespace, "uid": life.uid },
            "status": { "conditions": conditions },
        });
        match api.patch_status(&life.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await {
            // 409: the uid is another one.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(StatusError(Box::new(error))),
            Ok(_) => Ok(()),
        }
    }
}

fn conditions(object: &DynamicObject) -> Option<(PolicyLife, Vec<Condition>)> {
    let metadata = &object.metadata;
    let life =
        PolicyLife { namespace: metadata.namespace.clone()?, name: metadata.name.clone()?, uid: metadata.uid.clone()? };
    // What we cannot read is written anew.
    let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    Some((life, serde_json::from_value(conditions).unwrap_or_default()))
}

fn resource() -> ApiResource {
    ApiResource {
        group: "weft.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        plural: "authorizationpolicies".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::{Wanted, conditions, difference, shortened};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn wanted(holds: bool, message: &str) -> [Wanted; 1] {
        [Wanted { name: "Accepted", holds, reason: "Taken", message: message.to_owned() }]
    }

    #[test]
    fn only_a_change_is_written_and_only_a_new_status_is_a_transition() {
        let first = difference(&[], &wanted(true, "a"), 1, at("2026-11-23T04:00:00.7Z")).unwrap();
        assert_eq!(first[0].last_transition_time.0, at("2026-11-23T04:00:00Z"));
        let later = at("2026-11-23T05:00:00Z");
        assert_eq!(difference(&first, &wanted(true, "a"), 1, later), None);
        let said = difference(&first, &wanted(true, "b"), 1, later).unwrap();
        assert_eq!((said[0].last_transition_time.0, said[0].message.as_str()), (at("2026-11-23T04:00:00Z"), "b"));
        let generation = difference(&first, &wanted(true, "a"), 2, later).unwrap();
        assert_eq!(
            (generation[0].observed_generation, generation[0].last_transition_time.0),
            (Some(2), at("2026-11-23T04:00:00Z"))
        );
        let turned = difference(&first, &wanted(false, "a"), 1, later).unwrap();
        assert_eq!((turned[0].last_transition_time.0, turned[0].status.as_str()), (later, "False"));
    }

    #[test]
    fn what_was_written_is_read_again_and_a_status_of_somebody_else_harms_nobody() {
        let written = difference(&[], &wanted(true, "a"), 1, at("2026-11-23T04:00:00Z")).unwrap();
        let object = |status: serde_json::Value| {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "AuthorizationPolicy",
                "metadata": { "name": "a", "namespace": "b", "uid": "c" }, "status": status,
            }))
            .unwrap()
        };
        let read = conditions(&object(serde_json::json!({ "conditions": written }))).unwrap();
        assert_eq!((read.0.uid.as_str(), read.1), ("c", written));
        assert!(conditions(&object(serde_json::json!({ "conditions": "none" }))).unwrap().1.is_empty());
    }

    #[test]
    fn a_message_ends_somewhere() {
        assert_eq!(shortened("short"), "short");
        assert!(shortened(&"é".repeat(5000)).len() < 2060);
    }
}
