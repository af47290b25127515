//! The index: persistent maps, so that the next version shares what did not change and readers of the old one are
//! never disturbed. A change costs O(log n) map steps for each index and each service that it touches.

use std::cmp::Reverse;
use std::collections::BTreeMap;
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
    /// Services with ranges, by network and range.
    pub(super) ranges: Map<ServiceAddress, Vec<ServiceKey>>,
    /// How many ranges there are of each length, the longest first: the lengths to look under.
    pub(super) range_lengths: BTreeMap<Reverse<u8>, usize>,
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
            let mut set = self.endpoints.get(key).map_or_else(EndpointSet::default, |set| EndpointSet::clone(set));
            set.put(&workload);
            self.endpoints.insert_mut(key.clone(), Arc::new(set));
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
            let mut rest = EndpointSet::clone(set);
            rest.take(uid);
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
                    *self.range_lengths.entry(Reverse(address.prefix.prefix_len())).or_default() += 1;
                    add(&mut self.ranges, truncated(address), service.key.clone());
                }
            }
        }
        add(&mut self.services_by_hostname, service.key.hostname.clone(), service.key.clone());
        self.services.insert_mut(service.key.clone(), service);
    }

    fn take_service(&mut self, key: &ServiceKey) {
        let Some(old) = self.services.get(key).cloned() else { return };
        for address in &old.addresses {
            match address.as_single() {
                Some(single) => subtract(&mut self.services_by_address, &single, key),
                None => self.take_range(address, key),
            }
        }
        subtract(&mut self.services_by_hostname, &key.hostname, key);
        self.services.remove_mut(key);
    }

    fn take_range(&mut self, range: &ServiceAddress, key: &ServiceKey) {
        subtract(&mut self.ranges, &truncated(range), key);
        let length = Reverse(range.prefix.prefix_len());
        if let Some(count) = self.range_lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.range_lengths.remove(&length);
            }
        }
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

/// With the host's bits cleared, as it is looked up.
fn truncated(range: &ServiceAddress) -> ServiceAddress {
    ServiceAddress { network: range.network.clone(), prefix: range.prefix.trunc() }
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
