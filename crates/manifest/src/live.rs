//! Objects as an API server tells of them, one by one, and the last good version of each that is broken now.
//!
//! The same readers as for files. Only what a hand would misspell is not looked for: an API server drops unknown fields of its own
//! kinds, and a newer one than we know has fields that we do not (nothing that Weft reads has ever changed its name).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use crate::check::check;
use crate::document::Document;
use crate::finding::{Finding, Place, Severity};
use crate::objects::{Kind, Object, ObjectKey, Objects, Reading, read_served};
use crate::store::{Outcome, Revision};

/// Where findings say that an object stands.
const SOURCE: &str = "kubernetes";

/// What is in force, by the name of each object.
#[derive(Debug, Default)]
pub struct Live {
    held: BTreeMap<ObjectKey, Held>,
    /// What is wrong with objects that cannot even be named, by kind.
    nameless: BTreeMap<Kind, BTreeSet<Finding>>,
    /// Which state of each policy the server has.
    policies: BTreeMap<ObjectKey, Revision>,
}

#[derive(Debug)]
struct Held {
    /// None: it has never been good.
    object: Option<Object>,
    findings: Vec<Finding>,
    /// An older version than the server's.
    old: bool,
}

impl Live {
    /// Takes in an object of this kind, new or changed, as the server sends it: with or without `apiVersion` and `kind`. Gives its
    /// name, where that can be read.
    pub fn put(&mut self, kind: Kind, object: &impl Serialize) -> Option<ObjectKey> {
        let value = serde_yaml::to_value(object).unwrap_or(Value::Null);
        let mut fields = if let Value::Mapping(fields) = value { fields } else { Mapping::new() };
        fields.insert("apiVersion".into(), kind.api_version().into());
        fields.insert("kind".into(), kind.word().into());
        let document = Document { place: Place::whole_file(SOURCE), value: Value::Mapping(fields) };
        let key = self.hold(kind, &document);
        if let (Kind::AuthorizationPolicy, Some(key)) = (kind, &key) {
            self.policies.insert(key.clone(), revision(&document.value));
        }
        key
    }

    fn hold(&mut self, kind: Kind, document: &Document) -> Option<ObjectKey> {
        match read_served(document) {
            Reading::Good(key, object, findings) => {
                self.held.insert(key.clone(), Held { object: Some(object), findings, old: false });
                Some(key)
            }
            Reading::Refused(Some(key), findings) => {
                let before = self.held.remove(&key).and_then(|held| held.object);
                self.held.insert(key.clone(), Held { old: before.is_some(), object: before, findings });
                Some(key)
            }
            Reading::Refused(None, findings) => {
                self.nameless.entry(kind).or_default().extend(findings);
                None
            }
            // Every kind that is asked for is known.
            Reading::Foreign(finding) => {
                self.nameless.entry(kind).or_default().insert(finding);
                None
            }
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.held.remove(key);
        self.policies.remove(key);
    }

    /// After a whole list of a kind: what was not in it is gone.
    pub fn keep_only(&mut self, kind: Kind, listed: &BTreeSet<ObjectKey>) {
        self.held.retain(|key, _| key.kind != kind || listed.contains(key));
        self.policies.retain(|key, _| key.kind != kind || listed.contains(key));
    }

    /// Before a whole list of a kind.
    pub fn forget_nameless(&mut self, kind: Kind) {
        self.nameless.remove(&kind);
    }

    /// Something that concerns a whole kind, such as a server that does not know it; `None` takes it back.
    pub fn note(&mut self, kind: Kind, problem: Option<String>) {
        self.nameless.remove(&kind);
        if let Some(problem) = problem {
            let (place, severity) = (Place::whole_file(SOURCE), Severity::Error);
            let finding = Finding { place, severity, object: kind.to_string(), field: String::new(), problem };
            self.nameless.entry(kind).or_default().insert(finding);
        }
    }

    /// Everything that is in force.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let place = Place::whole_file(SOURCE);
        let (mut objects, mut kept) = (Objects::default(), BTreeSet::new());
        let mut findings: Vec<Finding> = self.nameless.values().flatten().cloned().collect();
        for (key, held) in &self.held {
            findings.extend(held.findings.iter().cloned());
            let Some(object) = &held.object else { continue };
            if held.old {
                kept.insert(key.clone());
            }
            objects.insert(key.clone(), object.clone(), place.clone());
        }
        findings.extend(check(&objects));
        findings.sort();
        Outcome { objects, findings, kept, policies: self.policies.clone() }
    }
}

fn revision(object: &Value) -> Revision {
    let metadata = object.get("metadata");
    let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
    Revision {
        uid: field("uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
        generation: field("generation").and_then(Value::as_u64).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::Live;
    use crate::objects::Kind;

    fn pod(name: &str, more: &Value) -> Value {
        let mut pod = json!({
            "metadata": { "name": name, "namespace": "shop", "uid": name, "newerField": 1 },
            "spec": { "nodeName": "node1", "containers": [{ "name": "c", "fieldOfKubernetes199": {} }], "fieldOfKubernetes199": true },
            "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.1" }] },
        });
        for (name, value) in more.as_object().unwrap() {
            pod[name] = value.clone();
        }
        pod
    }

    #[test]
    fn fields_of_newer_servers_harm_nobody() {
        let mut live = Live::default();
        live.put(Kind::Pod, &pod("web", &json!({})));
        let outcome = live.outcome();
        assert_eq!(outcome.objects.pods.len(), 1);
        assert!(!outcome.findings.iter().any(crate::Finding::needs_action), "{:?}", outcome.findings);
    }

    #[test]
    fn an_object_that_breaks_keeps_its_last_good_version_and_one_that_never_was_good_harms_nobody() {
        let mut live = Live::default();
        let key = live.put(Kind::Pod, &pod("web", &json!({}))).unwrap();
        let broken = json!({ "status": { "podIPs": [{ "ip": "no address" }] } });
        assert_eq!(live.put(Kind::Pod, &pod("web", &broken)), Some(key.clone()));
        live.put(Kind::Pod, &pod("other", &broken));
        live.put(Kind::Pod, &json!({ "metadata": {} }));
        live.put(Kind::Pod, &json!("no object"));
        let outcome = live.outcome();
        assert_eq!((outcome.objects.pods.len(), outcome.kept.clone()), (1, BTreeSet::from([key.clone()])));
        let wrong = |name: &str| outcome.findings.iter().any(|finding| finding.object.ends_with(name));
        assert!(wrong("shop/web") && wrong("shop/other"), "{:?}", outcome.findings);
        live.put(Kind::Pod, &pod("web", &json!({})));
        assert!(live.outcome().kept.is_empty());
        live.remove(&key);
        assert!(live.outcome().objects.pods.is_empty());
    }

    #[test]
    fn of_a_refused_policy_the_state_that_the_server_has_is_known_and_a_status_that_is_written_changes_nothing() {
        let mut live = Live::default();
        let policy = |generation: u64, spec: &Value, status: &Value| {
            let metadata = json!({ "name": "p", "namespace": "shop", "uid": "u", "generation": generation });
            json!({ "metadata": metadata, "spec": spec, "status": status })
        };
        let key = live.put(Kind::AuthorizationPolicy, &policy(1, &json!({}), &json!({}))).unwrap();
        let before = live.outcome();
        live.put(Kind::AuthorizationPolicy, &policy(1, &json!({}), &json!({ "conditions": [{ "type": "Accepted" }] })));
        assert_eq!(live.outcome(), before);
        live.put(Kind::AuthorizationPolicy, &policy(2, &json!({ "action": "Deny" }), &json!({})));
        let outcome = live.outcome();
        let in_force = &outcome.objects.policies[&("shop".to_owned(), "p".to_owned())];
        assert_eq!((outcome.policies[&key].generation, in_force.generation), (2, Some(1)));
        live.remove(&key);
        assert!(live.outcome().policies.is_empty());
    }

    #[test]
    fn what_is_not_in_a_new_list_is_gone_and_other_kinds_stay() {
        let mut live = Live::default();
        live.put(Kind::Namespace, &json!({ "metadata": { "name": "shop" } }));
        live.put(Kind::Pod, &pod("gone", &json!({})));
        let listed = BTreeSet::from_iter(live.put(Kind::Pod, &pod("stays", &json!({}))));
        live.keep_only(Kind::Pod, &listed);
        let objects = live.outcome().objects;
        assert_eq!((objects.pods.len(), objects.namespaces.len()), (1, 1));
        live.note(Kind::AuthorizationPolicy, Some("is not known there".to_owned()));
        assert!(live.outcome().findings.iter().any(|finding| finding.problem.contains("not known")));
        live.note(Kind::AuthorizationPolicy, None);
        assert!(!live.outcome().findings.iter().any(|finding| finding.problem.contains("not known")));
    }
}
