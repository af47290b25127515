//! What each replica of the control plane says to the one that leads: a text in a Lease of its own, which is gone with its pod.
//!
//! A Lease, since replicas may write those of their namespace anyhow: no further right is needed.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::client::Client;

const MANAGER: &str = "weft-xds-server";
/// What all of them are labelled with.
const LABEL: &str = "weft.dev/said-by";
/// Where the text is. Annotations of an object have room for 256 KiB together.
const ANNOTATION: &str = "weft.dev/acknowledged";

/// The API server did not do it.
#[derive(Debug, thiserror::Error)]
#[error("what a replica says: {0}")]
pub struct SayError(#[source] Box<kube::Error>);

/// Which pod we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The pod's name, or another one where we are no pod.
    pub name: String,
    /// The pod's uid; without one, what we said stays behind.
    pub uid: Option<String>,
}

/// What the replicas say.
#[derive(Clone)]
pub struct Replicas {
    api: Api<Lease>,
    us: Replica,
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replicas({})", self.us.name)
    }
}

impl Replicas {
    /// As this one, in this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str, us: Replica) -> Self {
        Self { api: Api::namespaced(client, namespace), us }
    }

    /// Says it, in place of what was said before.
    ///
    /// # Errors
    /// [`SayError`].
    pub async fn say(&self, text: &str) -> Result<(), SayError> {
        let said = Patch::Apply(object(&self.us, text));
        let said = self.api.patch(&self.us.name, &PatchParams::apply(MANAGER).force(), &said).await;
        said.map(drop).map_err(|error| SayError(Box::new(error)))
    }

    /// What the others say.
    ///
    /// # Errors
    /// [`SayError`].
    pub async fn others(&self) -> Result<Vec<String>, SayError> {
        let found = self.api.list(&ListParams::default().labels(LABEL)).await;
        let found = found.map_err(|error| SayError(Box::new(error)))?;
        let others = found.items.into_iter().filter(|lease| lease.metadata.name.as_ref() != Some(&self.us.name));
        Ok(others.filter_map(|lease| lease.metadata.annotations?.remove(ANNOTATION)).collect())
    }
}

fn object(us: &Replica, text: &str) -> serde_json::Value {
    let owners: Vec<_> =
        us.uid.iter().map(|uid| json!({ "apiVersion": "v1", "kind": "Pod", "name": us.name, "uid": uid })).collect();
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": us.name, "labels": { LABEL: "weft-xds-server" }, "annotations": { ANNOTATION: text }, "ownerReferences": owners,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{Replica, object};

    #[test]
    fn what_is_said_goes_with_the_pod_that_said_it() {
        let pod = Replica { name: "a".to_owned(), uid: Some("1".to_owned()) };
        let value = object(&pod, "text");
        assert_eq!(
            (&value["metadata"]["ownerReferences"][0]["uid"], &value["metadata"]["name"]),
            (&"1".into(), &"a".into())
        );
        assert_eq!(object(&Replica { uid: None, ..pod }, "text")["metadata"]["ownerReferences"], serde_json::json!([]));
    }
}
