//! The index: persistent maps, so that the next version shares what did not change and readers of the old one are
//! never disturbed. A change costs O(log n) map steps plus the endpoints of the services it touches.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync as Map;

use super::endpoints::EndpointSet;
use crate::address::NetworkAddress;
use crate::authz::{Policy, PolicyKey, Scope};
use crate::change::{Change, Resource, ResourceKey};
use crate::service::{Service, ServiceAddress, ServiceKey};
use crate::workload::{Uid, Workload};

/// One consistent version of everything known.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    pub(super) workloads: Map<Uid, Arc<Workload>>,
    pub(super) services: Map<ServiceKey, Arc<Service>>,
    pub(super) policies: Map<PolicyKey, Arc<Policy>>,
    pub(super) workloads_by_address: Map<NetworkAddress, Vec<Uid>>,
    pub(super) services_by_address: Map<NetworkAddress, Vec<ServiceKey>>,
    pub(super) services_by_hostname: Map<Arc<str>, Vec<ServiceKey>>,
    /// Services with ranges; few, so a list sorted by falling prefix length.
    pub(super) ranges: Arc<Vec<(ServiceAddress, ServiceKey)>>,
    pub(super) endpoints: Map<ServiceKey, Arc<EndpointSet>>,
    pub(super) policies_by_namespace: Map<Arc<str>, Vec<PolicyKey>>,
    pub(super) policies_everywhere: Vec<PolicyKey>,
}

impl Mesh {
    /// The next version.
    #[must_use]
    pub fn apply(&self, changes: Vec<Change>) -> Self {
        let mut next = self.clone();
        for change in changes {
            match change {
                Change::Upsert(Resource::Workload(workload)) => next.put_workload(Arc::new(workload)),
                Change::Upsert(Resource::Service(service)) => next.put_service(Arc::new(service)),
                Change::Upsert(Resource::Policy(policy)) => next.put_policy(Arc::new(policy)),
                Change::Remove(ResourceKey::Workload(uid)) => next.take_workload(&uid),
                Change::Remove(ResourceKey::Service(key)) => next.take_service(&key),
                Change::Remove(ResourceKey::Policy(key)) => next.take_policy(&key),
            }
        }
        next
    }

    /// All workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// All policies, in no particular order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    fn put_workload(&mut self, workload: Arc<Workload>) {
        self.take_workload(&workload.uid);
        for address in indexed_addresses(&workload) {
            add(&mut self.workloads_by_address, address, workload.uid.clone());
        }
        for key in workload.services.keys() {
            let set = self.endpoints.get(key).map_or_else(EndpointSet::default, |set| EndpointSet::clone(set));
            self.endpoints.insert_mut(key.clone(), Arc::new(set.with(&workload)));
        }
        self.workloads.insert_mut(workload.uid.clone(), workload);
    }

    fn take_workload(&mut self, uid: &Uid) {
        let Some(old) = self.workloads.get(uid).cloned() else { return };
        for address in indexed_addresses(&old) {
            subtract(&mut self.workloads_by_address, &address, uid);
        }
        for key in old.services.keys() {
            let Some(set) = self.endpoints.get(key) else { continue };
            let rest = set.without(uid);
            if rest.is_empty() {
                self.endpoints.remove_mut(key);
            } else {
                self.endpoints.insert_mut(key.clone(), Arc::new(rest));
            }
        }
        self.workloads.remove_mut(uid);
    }

    fn put_service(&mut self, service: Arc<Service>) {
        self.take_service(&service.key);
        for address in &service.addresses {
            match address.as_single() {
                Some(single) => add(&mut self.services_by_address, single, service.key.clone()),
                None => {
                    let ranges = Arc::make_mut(&mut self.ranges);
                    ranges.push((address.clone(), service.key.clone()));
                    ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix.prefix_len()));
                }
            }
        }
        add(&mut self.services_by_hostname, service.key.hostname.clone(), service.key.clone());
        self.services.insert_mut(service.key.clone(), service);
    }

    fn take_service(&mut self, key: &ServiceKey) {
        let Some(old) = self.services.get(key).cloned() else { return };
        for address in old.addresses.iter().filter_map(ServiceAddress::as_single) {
            subtract(&mut self.services_by_address, &address, key);
        }
        if self.ranges.iter().any(|(_, owner)| owner == key) {
            Arc::make_mut(&mut self.ranges).retain(|(_, owner)| owner != key);
        }
        subtract(&mut self.services_by_hostname, &key.hostname, key);
        self.services.remove_mut(key);
    }

    fn put_policy(&mut self, policy: Arc<Policy>) {
        self.take_policy(&policy.key);
        match policy.scope {
            Scope::Global => self.policies_everywhere.push(policy.key.clone()),
            Scope::Namespace => {
                add(&mut self.policies_by_namespace, policy.key.namespace.clone(), policy.key.clone());
            }
            Scope::Selected => {}
        }
        self.policies.insert_mut(policy.key.clone(), policy);
    }

    fn take_policy(&mut self, key: &PolicyKey) {
        let Some(old) = self.policies.get(key).cloned() else { return };
        match old.scope {
            Scope::Global => self.policies_everywhere.retain(|other| other != key),
            Scope::Namespace => subtract(&mut self.policies_by_namespace, &key.namespace, key),
            Scope::Selected => {}
        }
        self.policies.remove_mut(key);
    }
}

/// Host-network pods share the node's address, so it says nothing about which of them is meant.
fn indexed_addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> + '_ {
    let addresses: &[IpAddr] = if workload.host_network { &[] } else { &workload.addresses };
    addresses.iter().map(|address| NetworkAddress::new(workload.network.clone(), *address))
}

fn add<K: std::hash::Hash + Eq + Clone, V: Clone + Ord>(map: &mut Map<K, Vec<V>>, key: K, value: V) {
    let mut values = map.get(&key).cloned().unwrap_or_default();
    values.push(value);
    values.sort(); // so that ties are broken alike everywhere, whatever the order of arrival
    map.insert_mut(key, values);
}

fn subtract<K: std::hash::Hash + Eq + Clone, V: Clone + PartialEq>(map: &mut Map<K, Vec<V>>, key: &K, value: &V) {
    let Some(values) = map.get(key) else { return };
    let rest: Vec<V> = values.iter().filter(|other| *other != value).cloned().collect();
    if rest.is_empty() {
        map.remove_mut(key);
    } else {
        map.insert_mut(key.clone(), rest);
    }
}
