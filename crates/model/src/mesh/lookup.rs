//! Look-ups by key, address and name, with ztunnel's tie-breaks.

use std::sync::Arc;

use super::endpoints::EndpointSet;
use super::index::Mesh;
use crate::address::NetworkAddress;
use crate::authz::{Policy, PolicyKey};
use crate::service::{Service, ServiceAddress, ServiceKey};
use crate::workload::{TunnelProtocol, Uid, Workload};

impl Mesh {
    /// The workload with this uid.
    #[must_use]
    pub fn workload(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The service with this key.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The policy with this key.
    #[must_use]
    pub fn policy(&self, key: &PolicyKey) -> Option<&Policy> {
        self.policies.get(key).map(|policy| &**policy)
    }

    /// The policy with this key, to be kept.
    pub(crate) fn shared_policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// The policies for every workload of the namespace and of the mesh, to be kept.
    pub(crate) fn shared_policies_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        let keys = self.policies_by_namespace.get(namespace).into_iter().flatten().chain(&self.policies_everywhere);
        keys.filter_map(|key| self.policies.get(key))
    }

    /// The policies for every workload of the mesh.
    pub fn global_policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies_everywhere.iter().filter_map(|key| self.policy(key))
    }

    /// The policies for every workload of the namespace.
    pub fn policies_of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        self.policies_by_namespace.get(namespace).into_iter().flatten().filter_map(|key| self.policy(key))
    }

    /// The workload that owns the address: a pod before anything else, HBONE before plain.
    #[must_use]
    pub fn workload_at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        let uids = self.workloads_by_address.get(address)?;
        let rank = |workload: &&Arc<Workload>| {
            let is_pod = workload.uid.0.contains("//Pod/");
            let hbone = workload.tunnel == TunnelProtocol::Hbone;
            (is_pod, hbone)
        };
        // The uids are sorted; of equals the first wins.
        uids.iter().filter_map(|uid| self.workload(uid)).rev().max_by_key(rank)
    }

    /// The service that a client in `namespace` means by the address: an exact VIP, else the longest range.
    #[must_use]
    pub fn service_at(&self, address: &NetworkAddress, namespace: &str) -> Option<&Arc<Service>> {
        let exact = self.services_by_address.get(address).map(Vec::as_slice).unwrap_or_default();
        self.preferred(exact, namespace).or_else(|| {
            // One look-up for each length that there is; a length that the family does not have covers nothing.
            self.range_lengths.keys().find_map(|length| {
                let prefix = ipnet::IpNet::new(address.address, length.0).ok()?.trunc();
                let range = ServiceAddress { network: address.network.clone(), prefix };
                self.preferred(self.ranges.get(&range)?, namespace)
            })
        })
    }

    /// The service that a client in `namespace` means by the host name.
    #[must_use]
    pub fn service_named(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.preferred(self.services_by_hostname.get(hostname)?, namespace)
    }

    /// The endpoints of a service; none if it has none.
    #[must_use]
    pub fn endpoints(&self, key: &ServiceKey) -> Option<&EndpointSet> {
        self.endpoints.get(key).map(|set| &**set)
    }

    /// Invisible ones drop out; then the client's own namespace, then canonical, then the first.
    fn preferred(&self, keys: &[ServiceKey], namespace: &str) -> Option<&Arc<Service>> {
        keys.iter()
            .filter_map(|key| self.service(key))
            .filter(|service| is_visible(service, namespace))
            .rev()
            .max_by_key(|service| (&*service.key.namespace == namespace, service.canonical))
    }
}

fn is_visible(service: &Service, namespace: &str) -> bool {
    !service.namespace_only || &*service.key.namespace == namespace
}
