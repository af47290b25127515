//! What each replica of the control plane says to the one that leads: a text in a Lease of its own, which is gone with its pod.
//!
//! A Lease, since replicas may write those of their namespace anyhow: no further right is needed.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::client::Client;

const MANAGER: &str = "weft-xds-server";
/// What all of them are labelled with.
const LABEL: &str = "weft.dev/said-by";
/// Where the text is. Annotations of an object have room for 256 KiB together.
const ANNOTATION: &str = "weft.dev/acknowledged";
/// Where it says which roots it hands out and signs with, under a manager of its own: both texts stay beside each other.
const ROOTS: &str = "weft.dev/roots";
/// See [`ROOTS`].
const ROOTS_MANAGER: &str = "weft-xds-server-roots";
/// The pods of all replicas (manifests/base/xds-server.yaml).
const PODS: &str = "app=weft-xds-server";

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
    pods: Api<Pod>,
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
        Self { api: Api::namespaced(client.clone(), namespace), pods: Api::namespaced(client, namespace), us }
    }

    /// Says it, in place of what was said before.
    ///
    /// # Errors
    /// [`SayError`].
    pub async fn say(&self, text: &str) -> Result<(), SayError> {
        let said = Patch::Apply(object(&self.us, ANNOTATION, text));
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

    /// Says which roots are in force here.
    ///
    /// # Errors
    /// [`SayError`].
    pub async fn say_roots(&self, text: &str) -> Result<(), SayError> {
        let said = Patch::Apply(object(&self.us, ROOTS, text));
        let said = self.api.patch(&self.us.name, &PatchParams::apply(ROOTS_MANAGER).force(), &said).await;
        said.map(drop).map_err(|error| SayError(Box::new(error)))
    }

    /// The other replicas that run and have not said that these roots are in force with them. One whose pod has ended is none, whatever
    /// it has left behind.
    ///
    /// # Errors
    /// [`SayError`].
    pub async fn without_roots(&self, text: &str) -> Result<Vec<String>, SayError> {
        let failed = |error| SayError(Box::new(error));
        let running = ListParams::default().labels(PODS).fields("status.phase=Running");
        let pods = self.pods.list_metadata(&running).await.map_err(failed)?;
        let pods = pods.items.into_iter().filter_map(|pod| pod.metadata.name);
        let leases = self.api.list(&ListParams::default().labels(LABEL)).await.map_err(failed)?;
        let said = leases
            .items
            .into_iter()
            .filter_map(|lease| Some((lease.metadata.name?, lease.metadata.annotations?.remove(ROOTS)?)));
        Ok(missing(pods, &said.collect(), &self.us.name, text))
    }
}

/// Those of the pods, but for us, that have said something else, or nothing.
fn missing(pods: impl Iterator<Item = String>, said: &BTreeMap<String, String>, us: &str, text: &str) -> Vec<String> {
    pods.filter(|pod| pod != us && said.get(pod).is_none_or(|said| said != text)).collect()
}

fn object(us: &Replica, annotation: &str, text: &str) -> serde_json::Value {
    let owners: Vec<_> =
        us.uid.iter().map(|uid| json!({ "apiVersion": "v1", "kind": "Pod", "name": us.name, "uid": uid })).collect();
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": us.name, "labels": { LABEL: "weft-xds-server" }, "annotations": { annotation: text }, "ownerReferences": owners,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{ANNOTATION, Replica, missing, object};

    #[test]
    fn what_is_said_goes_with_the_pod_that_said_it() {
        let pod = Replica { name: "a".to_owned(), uid: Some("1".to_owned()) };
        let value = object(&pod, ANNOTATION, "text");
        assert_eq!(
            (&value["metadata"]["ownerReferences"][0]["uid"], &value["metadata"]["name"]),
            (&"1".into(), &"a".into())
        );
        assert_eq!(
            object(&Replica { uid: None, ..pod }, ANNOTATION, "text")["metadata"]["ownerReferences"],
            serde_json::json!([])
        );
    }

    #[test]
    fn a_replica_that_runs_and_says_nothing_or_another_thing_is_missed_and_one_that_has_ended_is_not() {
        let said = [("us", "old"), ("a", "new"), ("b", "old"), ("ended", "old")];
        let said = said.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let pods = ["us", "a", "b", "mute"].map(str::to_owned);
        assert_eq!(missing(pods.into_iter(), &said, "us", "new"), ["b", "mute"]);
    }
}
