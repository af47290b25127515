//! What `weft` does to a cluster: objects applied and deleted as plain values, looked at, labelled.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams,
    PropagationPolicy, Request,
};
use serde_json::{Value, json};

use crate::client::Client;

/// Under which name our fields are kept apart from others' (server-side apply).
const MANAGER: &str = "weft";

/// Kinds that are installed or looked at: group and version, kind, plural, whether in a namespace.
const KINDS: [(&str, &str, &str, bool); 20] = [
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Node", "nodes", false),
    ("v1", "Pod", "pods", true),
    ("v1", "Service", "services", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "ResourceQuota", "resourcequotas", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("coordination.k8s.io/v1", "Lease", "leases", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", false),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("crd.projectcalico.org/v1", "FelixConfiguration", "felixconfigurations", false),
];

/// The API server refused, or cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A kind that this program does not know.
    #[error("{0} is none of the kinds that weft installs")]
    Kind(String),
    /// An object without a name.
    #[error("a {0} has no metadata.name")]
    Nameless(String),
    /// The API server said no.
    #[error("{what}: {message}")]
    Refused {
        /// `apply Namespace weft-system`.
        what: String,
        /// Its words.
        message: String,
        /// The status of HTTP.
        code: u16,
    },
    /// The API server was not reached, or answered something strange.
    #[error("{what}: {cause}")]
    Api {
        /// `apply Namespace weft-system`.
        what: String,
        /// What it said.
        #[source]
        cause: Box<kube::Error>,
    },
}

impl ClusterError {
    /// Whether the user has no right to it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code: 403, .. })
    }
}

/// A cluster as its administrator sees it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// With the rights of this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client itself.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The server's version, such as `v1.34.4`.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn version(&self) -> Result<String, ClusterError> {
        let version = self.client.apiserver_version().await;
        version.map(|version| version.git_version).map_err(|cause| failed("version", cause))
    }

    /// Makes an object what it shall be (server-side apply): what others have set stays.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn apply(&self, object: &Value) -> Result<(), ClusterError> {
        let named = Named::of(object)?;
        let (api, how) = (named.api(&self.client), PatchParams::apply(MANAGER).force());
        let applied = api.patch(&named.name, &how, &Patch::Apply(object)).await;
        applied.map(drop).map_err(|cause| failed(&format!("apply {named}"), cause))
    }

    /// The object as it is, if it is there.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn read(&self, object: &Value) -> Result<Option<Value>, ClusterError> {
        let named = Named::of(object)?;
        let found = named.api(&self.client).get_opt(&named.name).await;
        let found = found.map_err(|cause| failed(&format!("get {named}"), cause))?;
        Ok(found.map(|object| serde_json::to_value(object).unwrap_or_default()))
    }

    /// Deletes an object and what it owns; says whether it was there.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn delete(&self, object: &Value) -> Result<bool, ClusterError> {
        let named = Named::of(object)?;
        let how = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        match named.api(&self.client).delete(&named.name, &how).await {
            Ok(_) => Ok(true),
            // 404: the object, or its whole kind.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(cause) => Err(failed(&format!("delete {named}"), cause)),
        }
    }

    /// All objects of a kind, in all namespaces; with a label selector, or an empty one.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn list(&self, kind: &str, labels: &str) -> Result<Vec<Value>, ClusterError> {
        let resource = resource(kind)?.0;
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let found = api.list(&ListParams::default().labels(labels)).await;
        let found = found.map_err(|cause| failed(&format!("list {kind}"), cause))?;
        Ok(found.items.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect())
    }

    /// The same in one namespace: for whoever may not look at all of them.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn list_in(&self, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>, ClusterError> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource(kind)?.0);
        let found = api.list(&ListParams::default().labels(labels)).await;
        let found = found.map_err(|cause| failed(&format!("list {kind} in {namespace}"), cause))?;
        Ok(found.items.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect())
    }

    /// The last lines that a container of a pod has logged.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn log(&self, namespace: &str, pod: &str, container: &str, lines: i64) -> Result<String, ClusterError> {
        let how = LogParams { container: Some(container.to_owned()), tail_lines: Some(lines), ..LogParams::default() };
        let said = Api::<Pod>::namespaced(self.client.clone(), namespace).logs(pod, &how).await;
        said.map_err(|cause| failed(&format!("log of {namespace}/{pod}, container {container}"), cause))
    }

    /// What a port of a node answers to GET, asked by the API server.
    ///
    /// # Errors
    /// [`ClusterError`], also where nobody listens there.
    pub async fn ask_node(&self, node: &str, port: u16, path: &str) -> Result<String, ClusterError> {
        let what = || format!("{path} of node {node}, port {port}");
        let request =
            Request::new("/api/v1/nodes").get_subresource(&format!("proxy/{path}"), &format!("{node}:{port}"));
        let request = request.map_err(|cause| failed(&what(), kube::Error::BuildRequest(cause)))?;
        self.client.request_text(request).await.map_err(|cause| failed(&what(), cause))
    }

    /// Whether this user may do `verb` with a resource of a group, in every namespace.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn may(&self, verb: &str, group: &str, resource: &str) -> Result<bool, ClusterError> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let question = SelfSubjectAccessReview { spec, ..Default::default() };
        let api = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &question).await;
        let answer = answer.map_err(|cause| failed("ask for rights", cause))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Sets a label of a namespace, or removes it.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn label_namespace(&self, name: &str, label: &str, value: Option<&str>) -> Result<(), ClusterError> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource("Namespace")?.0);
        let patch = json!({ "metadata": { "labels": { label: value } } });
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|cause| failed(&format!("label Namespace {name}"), cause))
    }
}

/// An object's kind and names.
struct Named {
    kind: String,
    namespace: Option<String>,
    name: String,
    resource: ApiResource,
}

impl Named {
    fn of(object: &Value) -> Result<Self, ClusterError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = text(&object["kind"]).unwrap_or_default();
        let (resource, namespaced) = resource(&kind)?;
        let name = text(&object["metadata"]["name"]).ok_or_else(|| ClusterError::Nameless(kind.clone()))?;
        let namespace = text(&object["metadata"]["namespace"]).filter(|_| namespaced);
        Ok(Self { kind, namespace, name, resource })
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

fn resource(kind: &str) -> Result<(ApiResource, bool), ClusterError> {
    let known = KINDS.iter().find(|(_, known, ..)| *known == kind);
    let (api_version, kind, plural, namespaced) = known.ok_or_else(|| ClusterError::Kind(kind.to_owned()))?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: (*api_version).to_owned(),
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
    };
    Ok((resource, *namespaced))
}

fn failed(what: &str, cause: kube::Error) -> ClusterError {
    let what = what.to_owned();
    match cause {
        kube::Error::Api(status) => ClusterError::Refused { what, message: status.message.clone(), code: status.code },
        cause => ClusterError::Api { what, cause: Box::new(cause) },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Named;

    #[test]
    fn objects_are_named_in_words_that_people_know() {
        let role = json!({ "kind": "Role", "metadata": { "name": "a", "namespace": "b" } });
        assert_eq!(Named::of(&role).map(|named| named.to_string()).unwrap(), "Role b/a");
        let namespace = json!({ "kind": "Namespace", "metadata": { "name": "a", "namespace": "wrong" } });
        assert_eq!(Named::of(&namespace).map(|named| named.to_string()).unwrap(), "Namespace a");
        let wrong = |value| Named::of(&value).map(drop).unwrap_err().to_string();
        assert!(wrong(json!({ "kind": "Ingress", "metadata": { "name": "a" } })).contains("Ingress"));
        assert!(wrong(json!({ "kind": "Role" })).contains("metadata.name"));
    }
}
