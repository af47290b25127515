//! All objects in force at one time, and the questions that both programs ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::enrolment::{self, Enrolment, Facts, MTLS_LABEL, MtlsMode, SYSTEM_NAMESPACE};

use super::cluster::{Namespace, Node, ServiceAccount};
use super::kind::ObjectKey;
use super::pod::Pod;
use super::policy::AuthorizationPolicy;
use super::read::Object;
use super::service::Service;
use super::slice::EndpointSlice;
use crate::finding::Place;

/// `(namespace, name)`.
type Name = (String, String);

/// One consistent set of objects. Cheap to clone in its parts: every object is shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects {
    /// By name.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// By name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// By namespace and name.
    pub pods: BTreeMap<Name, Arc<Pod>>,
    /// By namespace and name.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// By namespace and name.
    pub slices: BTreeMap<Name, Arc<EndpointSlice>>,
    /// By namespace and name.
    pub service_accounts: BTreeMap<Name, Arc<ServiceAccount>>,
    /// By namespace and name.
    pub policies: BTreeMap<Name, Arc<AuthorizationPolicy>>,
    /// Where each of them stands, for findings.
    pub places: BTreeMap<ObjectKey, Place>,
}

impl Objects {
    /// Puts one object in; an older one of the same name is replaced.
    pub fn insert(&mut self, key: ObjectKey, object: Object, place: Place) {
        let name = (key.namespace.clone(), key.name.clone());
        match object {
            Object::Namespace(object) => drop(self.namespaces.insert(key.name.clone(), object)),
            Object::Node(object) => drop(self.nodes.insert(key.name.clone(), object)),
            Object::Pod(object) => drop(self.pods.insert(name, object)),
            Object::Service(object) => drop(self.services.insert(name, object)),
            Object::EndpointSlice(object) => drop(self.slices.insert(name, object)),
            Object::ServiceAccount(object) => drop(self.service_accounts.insert(name, object)),
            Object::AuthorizationPolicy(object) => drop(self.policies.insert(name, object)),
        }
        self.places.insert(key, place);
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the pod is in the mesh, and why (not).
    #[must_use]
    pub fn enrolment(&self, pod: &Pod) -> Enrolment {
        let none = BTreeMap::new();
        enrolment::enrolment(Facts {
            namespace: &pod.metadata.namespace,
            namespace_labels: self
                .namespaces
                .get(&pod.metadata.namespace)
                .map_or(&none, |found| &found.metadata.labels),
            pod_labels: &pod.metadata.labels,
            host_network: pod.host_network,
            finished: pod.is_finished(),
        })
    }

    /// Whether the pod accepts plaintext from outside the mesh.
    #[must_use]
    pub fn mtls_mode(&self, pod: &Pod) -> MtlsMode {
        let of = |labels: &BTreeMap<String, String>| labels.get(MTLS_LABEL).cloned();
        let of_namespace = |name: &str| self.namespaces.get(name).and_then(|found| of(&found.metadata.labels));
        enrolment::mtls_mode(
            of(&pod.metadata.labels).as_deref(),
            of_namespace(&pod.metadata.namespace).as_deref(),
            of_namespace(SYSTEM_NAMESPACE).as_deref(),
        )
    }

    /// The pods that are bound to the node, in the order of their names; finished ones, too.
    pub fn pods_of_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods.values().filter(move |pod| pod.node == node)
    }

    /// Where an object stands; every object that is in has a place.
    #[must_use]
    pub fn place(&self, key: &ObjectKey) -> Option<&Place> {
        self.places.get(key)
    }
}
