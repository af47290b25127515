//! Small files that replicas share: a Secret that is made once and written by whoever has read it last, and a ConfigMap that everybody
//! may read.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::client::Client;
use crate::rotation::Rotation;

const MANAGER: &str = "weft-xds-server";

/// Files by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The API server did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{what} {namespace}/{name}: {cause}")]
pub struct FilesError {
    /// `Secret` or `ConfigMap`.
    what: &'static str,
    namespace: String,
    name: String,
    #[source]
    cause: Box<kube::Error>,
}

/// A Secret as it was read.
#[derive(Clone)]
pub struct Held {
    secret: Secret,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({:?})", self.secret.metadata.resource_version)
    }
}

impl Held {
    /// Its files.
    #[must_use]
    pub fn files(&self) -> Files {
        let data = self.secret.data.iter().flatten();
        data.map(|(name, ByteString(bytes))| (name.clone(), bytes.clone())).collect()
    }

    /// What its annotations say of a rotation.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.secret.metadata.annotations.as_ref().map(Rotation::read).unwrap_or_default()
    }
}

/// One Secret.
#[derive(Clone)]
pub struct SharedSecret {
    client: Client,
    namespace: String,
    name: String,
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSecret({}/{})", self.namespace, self.name)
    }
}

impl SharedSecret {
    /// Names it; it need not be there.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// What it holds, if it is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(&self) -> Result<Option<Held>, FilesError> {
        let found = self.api().get_opt(&self.name).await.map_err(|cause| self.failed(cause))?;
        Ok(found.map(|secret| Held { secret }))
    }

    /// Writes these files and this word on a rotation, if it still is what was read; says whether it was. Its other annotations stay.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn write(&self, read: Held, files: Files, rotation: &Rotation) -> Result<bool, FilesError> {
        let mut secret = read.secret;
        secret.data = Some(files.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect());
        rotation.write(secret.metadata.annotations.get_or_insert_default());
        match self.api().replace(&self.name, &PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(cause) => Err(self.failed(cause)),
        }
    }

    /// Makes it, unless somebody else was first; says whether it was us.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn create(&self, files: &Files) -> Result<bool, FilesError> {
        let data = files.iter().map(|(name, bytes)| (name.clone(), ByteString(bytes.clone()))).collect();
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        match self.api().create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(cause) => Err(self.failed(cause)),
        }
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn failed(&self, cause: kube::Error) -> FilesError {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        FilesError { what: "Secret", namespace, name, cause: Box::new(cause) }
    }
}

/// Puts texts where every pod of the namespace can mount them.
///
/// # Errors
/// It cannot be written.
pub async fn publish(
    client: &Client,
    namespace: &str,
    name: &str,
    texts: &BTreeMap<String, String>,
) -> Result<(), FilesError> {
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": texts });
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
    applied.map(drop).map_err(|cause| FilesError {
        what: "ConfigMap",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        cause: Box::new(cause),
    })
}
