//! One watch for each kind: what is asked for, and how.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ApiResource, DynamicObject, ResourceExt};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, Resource};
use serde_json::Value;
use weft_manifest::Kind;
use weft_runtime::backoff::{Backoff, Settings};

use crate::scope::Scope;

/// Objects in one page of a list: Kubernetes' own clients ask for as many.
const PAGE: u32 = 500;
/// A server that does not answer a watch any more is noticed after this long at the latest: it ends each by itself, and the next one
/// begins where that one stopped.
const WATCH_SECONDS: u32 = 290;
/// How long a kind that the server does not know is left alone.
pub(crate) const UNKNOWN_KIND_REST: Duration = Duration::from_secs(10);

/// Rests between tries of a watch that fails. Kubernetes' own clients go up to 30 s, and again after each further fault: a pod that came
/// meanwhile would be in nobody's mesh for a minute after the API server is back (seen).
const REST: Settings =
    Settings { initial: Duration::from_millis(200), cap: Duration::from_secs(5), factor: 2.0, jitter: 0.5 };

/// Our rests, as the client wants them.
struct Rest(Backoff);

impl Iterator for Rest {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next_delay(&mut rand::rng()))
    }
}

impl kube::runtime::utils::Backoff for Rest {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Tell {
    /// A whole list begins.
    Begin,
    /// An object of a list that has begun.
    Listed(Value),
    /// The list is complete.
    Complete,
    /// New or changed.
    Put(Value),
    /// Gone: its namespace and name.
    Gone(String, String),
    /// The watch failed and tries again.
    Failed(String),
    /// The server does not know the kind.
    NoSuchKind,
}

/// Watches one kind for ever.
pub(crate) fn of(kind: Kind, client: &Client, scope: &Scope) -> BoxStream<'static, Tell> {
    let mut config = Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
    if let (Kind::Pod, Scope::Node(node)) = (kind, scope) {
        config = config.fields(&format!("spec.nodeName={node}"));
    }
    match kind {
        // Names and labels are all that counts of these.
        Kind::Namespace => tell(watch(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config)),
        Kind::ServiceAccount => tell(watch(Api::<PartialObjectMeta<ServiceAccount>>::all(client.clone()), config)),
        _ => tell(watch(Api::<DynamicObject>::all_with(client.clone(), &resource(kind)), config)),
    }
}

fn resource(kind: Kind) -> ApiResource {
    let plural = match kind {
        Kind::Namespace => "namespaces",
        Kind::Node => "nodes",
        Kind::Pod => "pods",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::ServiceAccount => "serviceaccounts",
        Kind::AuthorizationPolicy => "authorizationpolicies",
    };
    let version = kind.api_version().rsplit('/').next().unwrap_or_default();
    ApiResource {
        group: kind.group().to_owned(),
        version: version.to_owned(),
        api_version: kind.api_version().to_owned(),
        kind: kind.word().to_owned(),
        plural: plural.to_owned(),
    }
}

fn tell<K, S>(events: S) -> BoxStream<'static, Tell>
where
    K: Resource + serde::Serialize + Debug,
    S: futures_util::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    let value = |mut object: K| {
        // Who wrote which field when is half of an object, and nobody here asks.
        object.managed_fields_mut().clear();
        serde_json::to_value(object).unwrap_or_default()
    };
    events
        .backoff(Rest(Backoff::new(REST)))
        .map_ok(move |event| match event {
            Event::Init => Tell::Begin,
            Event::InitApply(object) => Tell::Listed(value(object)),
            Event::InitDone => Tell::Complete,
            Event::Apply(object) => Tell::Put(value(object)),
            Event::Delete(object) => Tell::Gone(object.namespace().unwrap_or_default(), object.name_any()),
        })
        .map(|event| event.unwrap_or_else(|error| failed(&error)))
        .boxed()
}

fn failed(error: &watcher::Error) -> Tell {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => Tell::NoSuchKind,
        error => Tell::Failed(error.to_string()),
    }
}

/// An object as small as its readers allow, for tests of what is done with it.
#[cfg(test)]
pub(crate) fn named(namespace: &str, name: &str) -> Value {
    serde_json::json!({ "metadata": { "namespace": namespace, "name": name } })
}
