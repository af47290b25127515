//! What every object has: names, labels, annotations, owner, and whether it is being deleted. Also checks our own labels,
//! wherever they stand.

use std::collections::BTreeMap;

use serde::Serialize;
use weft_model::enrolment::{MESH_LABEL, MTLS_LABEL};

use super::kind::Kind;
use crate::fields::At;

/// Which namespace of the node's a pod has, where nobody else can say it (directory source): a name under `/run/netns`,
/// or an absolute path.
pub const NETNS_ANNOTATION: &str = "weft.dev/netns";
/// Which waypoint traffic goes through; `none` for no waypoint.
pub const WAYPOINT_LABEL: &str = "weft.dev/use-waypoint";
/// The prefix of all labels and annotations of Weft.
const WEFT_PREFIX: &str = "weft.dev/";

/// `metadata` as far as Weft reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace; empty for kinds without one.
    pub namespace: String,
    /// What tells one life of a name from the next; not there in hand-written files.
    pub uid: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The owner that controls it.
    pub controller: Option<Owner>,
    /// It has a deletion timestamp.
    pub deleting: bool,
}

/// An owner reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The owner's kind, for example `ReplicaSet`.
    pub kind: String,
    /// The owner's name.
    pub name: String,
}

/// Fields of `ObjectMeta` (Kubernetes 1.37, and those that older servers wrote).
const FIELDS: [&str; 16] = [
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// RFC 1123 as Kubernetes applies it: names are subdomains of at most 253 bytes.
const NAME_LIMIT: usize = 253;
/// Namespaces (and names of services) are single labels of at most 63 bytes.
const LABEL_LIMIT: usize = 63;

/// Kubernetes' namespace for objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

pub(super) fn read(at: &At<'_>, kind: Kind) -> Metadata {
    at.only(&FIELDS);
    if !at.is_present() {
        at.error("is missing; expected at least a name");
    }
    let name = at.field("name");
    let limit = if matches!(kind, Kind::Namespace | Kind::Service) { LABEL_LIMIT } else { NAME_LIMIT };
    check_name(&name, name.required_text(), limit, limit == NAME_LIMIT);
    let namespace = at.field("namespace");
    let namespace_text = match (kind.is_namespaced(), namespace.text()) {
        (true, None | Some("")) => DEFAULT_NAMESPACE,
        (true, Some(text)) => text,
        (false, text) => {
            if text.is_some_and(|text| !text.is_empty()) {
                namespace.error(format!("a {kind} belongs to no namespace; leave the field out"));
            }
            ""
        }
    };
    if kind.is_namespaced() {
        check_name(&namespace, namespace_text, LABEL_LIMIT, false);
    }
    let labels = at.field("labels").texts();
    check_our_labels(&at.field("labels"), &labels, kind);
    let annotations = at.field("annotations").texts();
    check_our_annotations(&at.field("annotations"), &annotations);
    Metadata {
        name: name.owned_text(),
        namespace: namespace_text.to_owned(),
        uid: at.field("uid").text().filter(|uid| !uid.is_empty()).map(str::to_owned),
        labels,
        annotations,
        controller: controller(&at.field("ownerReferences")),
        deleting: at.field("deletionTimestamp").text().is_some_and(|text| !text.is_empty()),
    }
}

pub(super) fn check_name(at: &At<'_>, name: &str, limit: usize, dots: bool) {
    let inside =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (dots && byte == b'.');
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    let good = end(bytes.first().copied()) && end(bytes.last().copied()) && bytes.iter().all(|byte| inside(*byte));
    if !name.is_empty() && (!good || name.len() > limit) {
        let dot = if dots { " ." } else { "" };
        at.error(format!(
            "is '{name}'; expected at most {limit} of a-z 0-9 -{dot}, beginning and ending with a-z or 0-9"
        ));
    }
}

fn controller(at: &At<'_>) -> Option<Owner> {
    at.items().into_iter().find(|owner| owner.field("controller").boolean().unwrap_or_default()).map(|owner| Owner {
        kind: owner.field("kind").required_text().to_owned(),
        name: owner.field("name").required_text().to_owned(),
    })
}

/// A label of ours with a value that means nothing would silently not enrol, or not protect.
fn check_our_labels(at: &At<'_>, labels: &BTreeMap<String, String>, kind: Kind) {
    for (key, value) in labels.iter().filter(|(key, _)| key.starts_with(WEFT_PREFIX)) {
        let label = at.field(key);
        match (key.as_str(), value.as_str()) {
            (MESH_LABEL, "enabled" | "disabled") | (MTLS_LABEL, "strict" | "permissive") => {
                if !matches!(kind, Kind::Namespace | Kind::Pod) {
                    label.warning(format!("has no effect on a {kind}; expected it on a Namespace or Pod"));
                }
            }
            (MESH_LABEL, other) => label.error(format!("is '{other}'; expected enabled or disabled")),
            (MTLS_LABEL, other) => label.error(format!("is '{other}'; expected strict or permissive")),
            (WAYPOINT_LABEL, "none") => {}
            (WAYPOINT_LABEL, _) => {
                label.warning("has no effect: this version of Weft has no waypoints; expected no such label");
            }
            (other, _) => {
                let expected = format!("expected {MESH_LABEL}, {MTLS_LABEL} or {WAYPOINT_LABEL}");
                label.error(format!("unknown label '{other}' of Weft; {expected}"));
            }
        }
    }
}

fn check_our_annotations(at: &At<'_>, annotations: &BTreeMap<String, String>) {
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(WEFT_PREFIX)) {
        let annotation = at.field(key);
        match key.as_str() {
            NETNS_ANNOTATION if is_netns(value) => {}
            NETNS_ANNOTATION => {
                annotation.error(format!("is '{value}'; expected a name under /run/netns or an absolute path"));
            }
            MESH_LABEL | MTLS_LABEL | WAYPOINT_LABEL => annotation.error("has no effect; expected it among the labels"),
            other => annotation.error(format!("unknown annotation '{other}' of Weft; expected {NETNS_ANNOTATION}")),
        }
    }
}

fn is_netns(value: &str) -> bool {
    let plain = !value.contains('\0') && !value.split('/').any(|part| part == "..");
    plain && (value.len() > 1 && value.starts_with('/') || !value.is_empty() && !value.contains('/') && value != ".")
}
