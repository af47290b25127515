//! Writes the condition `weft.dev/captured` of pods.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use weft_manifest::objects::CAPTURED_CONDITION;

use crate::client::Client;

/// Under which name our fields are kept apart from the kubelet's (server-side apply).
const MANAGER: &str = "weft-xds-server";

/// What to write of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which life of that name: another one is left alone.
    pub uid: Option<String>,
    /// Whether it is captured.
    pub captured: bool,
}

/// The pod's condition could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not take the condition: {0}")]
pub struct MarkError(#[source] Box<kube::Error>);

/// Writes marks.
#[derive(Clone)]
pub struct CapturedWriter {
    client: Client,
}

impl std::fmt::Debug for CapturedWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapturedWriter").finish_non_exhaustive()
    }
}

impl CapturedWriter {
    /// Writes with the rights of this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Writes one. A pod that is gone, or is another one of that name by now, needs none.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn write(&self, mark: &Mark) -> Result<(), MarkError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &mark.namespace);
        let patch = Patch::Apply(condition(mark, Timestamp::now()));
        match pods.patch_status(&mark.name, &PatchParams::apply(MANAGER).force(), &patch).await {
            // 409: the uid is another one.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(MarkError(Box::new(error))),
            Ok(_) => Ok(()),
        }
    }
}

fn condition(mark: &Mark, now: Timestamp) -> serde_json::Value {
    let (status, reason, message) = if mark.captured {
        ("True", "Captured", "its traffic goes through the mesh")
    } else {
        ("False", "NotCaptured", "its node does not capture it (any more)")
    };
    let mut metadata = json!({ "name": mark.name, "namespace": mark.namespace });
    if let Some(uid) = &mark.uid {
        metadata["uid"] = json!(uid);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "status": { "conditions": [{
            "type": CAPTURED_CONDITION, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] },
    })
}

#[cfg(test)]
mod tests {
    use super::{Mark, condition};

    #[test]
    fn the_condition_names_the_life_of_the_pod_that_is_meant() {
        let mark =
            Mark { namespace: "shop".to_owned(), name: "web".to_owned(), uid: Some("u1".to_owned()), captured: true };
        let value = condition(&mark, "2026-11-22T10:00:00.5Z".parse().unwrap());
        assert_eq!(
            (&value["metadata"]["uid"], &value["status"]["conditions"][0]["status"]),
            (&"u1".into(), &"True".into())
        );
        assert_eq!(value["status"]["conditions"][0]["lastTransitionTime"], "2026-11-22T10:00:00Z");
        let value = condition(&Mark { uid: None, captured: false, ..mark }, "2026-11-22T10:00:00Z".parse().unwrap());
        assert_eq!(
            (value["metadata"].get("uid"), &value["status"]["conditions"][0]["status"]),
            (None, &"False".into())
        );
    }
}
