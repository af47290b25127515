//! One document in, one object (or its faults) out.

use std::sync::Arc;

use serde_yaml::Value;

use super::cluster::{self, Namespace, Node, ServiceAccount};
use super::kind::{Kind, ObjectKey, WEFT_GROUP};
use super::metadata;
use super::pod::{self, Pod};
use super::policy::{self, AuthorizationPolicy};
use super::service::{self, Service};
use super::slice::{self, EndpointSlice};
use crate::document::Document;
use crate::fields::{At, Problems};
use crate::finding::{Finding, Severity};

/// An object of a kind that Weft reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A Namespace.
    Namespace(Arc<Namespace>),
    /// A Node.
    Node(Arc<Node>),
    /// A Pod.
    Pod(Arc<Pod>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// A ServiceAccount.
    ServiceAccount(Arc<ServiceAccount>),
    /// An AuthorizationPolicy.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
}

/// What came of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// An object, perhaps with warnings.
    Good(ObjectKey, Object, Vec<Finding>),
    /// It is refused. Its name where that much can be read, so that its last good version can stay.
    Refused(Option<ObjectKey>, Vec<Finding>),
    /// A kind that is none of ours, with the note about it.
    Foreign(Finding),
}

/// Reads one document that somebody wrote: a field that is not known is one that was misspelt.
#[must_use]
pub fn read(document: &Document) -> Reading {
    read_with(document, Problems::default())
}

/// Reads one object that an API server sent: a field that is not known is one of a newer version.
#[must_use]
pub fn read_served(document: &Document) -> Reading {
    read_with(document, Problems::of_a_server())
}

fn read_with(document: &Document, problems: Problems) -> Reading {
    let root = At::root(&document.value, &problems);
    let kind = match kind_of(&root, &document.value) {
        Known::Ours(kind) => kind,
        Known::Foreign(text) => {
            let problem = "is none of the kinds that Weft reads; ignored".to_owned();
            let place = document.place.clone();
            let field = String::new();
            return Reading::Foreign(Finding { place, severity: Severity::Note, object: text, field, problem });
        }
        Known::Neither => return Reading::Refused(None, findings(document, problems, "")),
    };
    let metadata = metadata::read(&root.field("metadata"), kind);
    let key = ObjectKey { kind, namespace: metadata.namespace.clone(), name: metadata.name.clone() };
    let object = match kind {
        Kind::Namespace => Object::Namespace(Arc::new(cluster::read_namespace(&root, metadata))),
        Kind::Node => Object::Node(Arc::new(cluster::read_node(&root, metadata))),
        Kind::Pod => Object::Pod(Arc::new(pod::read(&root, metadata))),
        Kind::Service => Object::Service(Arc::new(service::read(&root, metadata))),
        Kind::EndpointSlice => Object::EndpointSlice(Arc::new(slice::read(&root, metadata))),
        Kind::ServiceAccount => Object::ServiceAccount(Arc::new(cluster::read_service_account(&root, metadata))),
        Kind::AuthorizationPolicy => Object::AuthorizationPolicy(Arc::new(policy::read(&root, metadata))),
    };
    let findings = findings(document, problems, &key.to_string());
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        let named = !key.name.is_empty() && (!kind.is_namespaced() || !key.namespace.is_empty());
        return Reading::Refused(named.then_some(key), findings);
    }
    Reading::Good(key, object, findings)
}

enum Known {
    Ours(Kind),
    /// `Kind name` for the note.
    Foreign(String),
    /// Not even that can be read; the problem is recorded.
    Neither,
}

fn kind_of(root: &At<'_>, value: &Value) -> Known {
    let (version_at, kind_at) = (root.field("apiVersion"), root.field("kind"));
    let (version, word) = (version_at.required_text(), kind_at.required_text());
    if version.is_empty() || word.is_empty() {
        return Known::Neither;
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = Kind::ALL.into_iter().find(|kind| kind.word() == word && kind.group() == group);
    match known {
        Some(kind) if kind.api_version() == version => Known::Ours(kind),
        Some(kind) => {
            version_at.error(format!("is '{version}'; expected '{}' for a {kind}", kind.api_version()));
            Known::Neither
        }
        None if group == WEFT_GROUP => {
            kind_at.error(format!("'{word}' is no kind of {WEFT_GROUP}; expected AuthorizationPolicy"));
            Known::Neither
        }
        None => {
            let name = value.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
            Known::Foreign(format!("{word} {}", name.unwrap_or("without a name")))
        }
    }
}

fn findings(document: &Document, problems: Problems, object: &str) -> Vec<Finding> {
    let finding = |problem: crate::fields::Problem| Finding {
        place: document.place.clone(),
        severity: problem.severity,
        object: object.to_owned(),
        field: problem.field,
        problem: problem.text,
    };
    problems.into_vec().into_iter().map(finding).collect()
}
