//! Who serves which service, on which ports: from EndpointSlices, or from the selector where a service has no slice.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_manifest::Objects;
use weft_manifest::objects::{Endpoint, EndpointSlice, Pod, Service, TargetPort};
use weft_model::ServiceKey;
use weft_model::workload::PortMapping;

use super::settings::MeshSettings;

/// `(namespace, name)`.
pub(super) type Name = (String, String);
/// The services of one endpoint, with its ports there.
pub(super) type Ports = BTreeMap<ServiceKey, Vec<PortMapping>>;

/// Everything that serves something.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// Pods.
    pub(super) of_pods: BTreeMap<Name, Ports>,
    /// Addresses that are no pod of this cluster, by slice and address.
    pub(super) others: BTreeMap<(Name, IpAddr), Other>,
    /// Pods that count as ready though nothing is heard of their nodes, because a service of theirs has nobody else. An API server that
    /// was away for a minute may find every node silent for a moment, and then no service has an endpoint, while all of them serve
    /// (docs/decisions/0028-silent-nodes.md).
    pub(super) last_resort: BTreeSet<Name>,
}

/// An endpoint that is no pod.
#[derive(Debug)]
pub(super) struct Other {
    /// The slice's namespace.
    pub(super) namespace: String,
    /// The slice's name.
    pub(super) slice: String,
    /// The service's name.
    pub(super) service: String,
    /// The address.
    pub(super) address: IpAddr,
    /// Connections may go there.
    pub(super) ready: bool,
    /// The node, if the slice says so.
    pub(super) node: String,
    /// The zone, if the slice says so.
    pub(super) zone: String,
    /// The services, with its ports there.
    pub(super) services: Ports,
}

pub(super) fn of_services(objects: &Objects, settings: &MeshSettings) -> Endpoints {
    let mut slices: BTreeMap<(&str, &str), Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in objects.slices.values() {
        if let Some(service) = slice.service() {
            slices.entry((&slice.metadata.namespace, service)).or_default().push(slice);
        }
    }
    let by_address = pods_by_address(objects);
    let by_label = LazyCell::new(|| PodsByLabel::new(objects));
    let mut endpoints = Endpoints::default();
    for ((namespace, name), service) in objects.services.iter().filter(|(_, service)| !service.external_name) {
        let key = settings.service_key(namespace, name);
        match slices.get(&(namespace.as_str(), name.as_str())) {
            Some(slices) => {
                for slice in slices {
                    from_slice(objects, &by_address, &key, (service, slice), &mut endpoints);
                }
            }
            None => {
                for pod in by_label.selected(namespace, service) {
                    endpoints.add_pod(name_of(pod), &key, ports_of_pod(service, pod), service);
                }
            }
        }
    }
    endpoints.last_resort = last_resort(objects, &endpoints);
    endpoints
}

fn last_resort(objects: &Objects, endpoints: &Endpoints) -> BTreeSet<Name> {
    let pods =
        || endpoints.of_pods.iter().filter_map(|(name, services)| Some((name, services, objects.pods.get(name)?)));
    let mut doubted = pods().filter(|(_, _, pod)| pod.is_ready_but_for_its_node()).peekable();
    if doubted.peek().is_none() {
        return BTreeSet::new();
    }
    let ready = pods().filter(|(_, _, pod)| pod.is_ready()).map(|(_, services, _)| services);
    let others = endpoints.others.values().filter(|other| other.ready).map(|other| &other.services);
    let served: HashSet<&ServiceKey> = ready.chain(others).flat_map(BTreeMap::keys).collect();
    let alone = doubted.filter(|(_, services, _)| services.keys().any(|service| !served.contains(service)));
    alone.map(|(name, _, _)| name.clone()).collect()
}

/// Pods by each of their labels: a selector is compared with the pods that have the rarest of its labels, and not with every
/// pod of its namespace (1,000 services and 100,000 pods in one namespace: two minutes in a debug build, for one change).
struct PodsByLabel<'o>(HashMap<(&'o str, &'o str, &'o str), Vec<&'o Arc<Pod>>>);

impl<'o> PodsByLabel<'o> {
    fn new(objects: &'o Objects) -> Self {
        let mut pods: HashMap<_, Vec<_>> = HashMap::new();
        for pod in objects.pods.values().filter(|pod| !pod.is_finished()) {
            for (key, value) in &pod.metadata.labels {
                pods.entry((pod.metadata.namespace.as_str(), key.as_str(), value.as_str())).or_default().push(pod);
            }
        }
        Self(pods)
    }

    /// The pods that a service's selector means; none if it has no selector.
    fn selected<'s>(
        &'s self,
        namespace: &'s str,
        service: &'s Service,
    ) -> impl Iterator<Item = &'s Arc<Pod>> + use<'s, 'o> {
        let with = |(key, value): (&'s String, &'s String)| -> &'s [&'s Arc<Pod>] {
            self.0.get(&(namespace, key.as_str(), value.as_str())).map(Vec::as_slice).unwrap_or_default()
        };
        let rarest = service.selector.iter().map(with).min_by_key(|pods| pods.len()).unwrap_or_default();
        let has_all =
            |pod: &Pod| service.selector.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value));
        rarest.iter().copied().filter(move |pod| has_all(pod))
    }
}

fn from_slice(
    objects: &Objects,
    by_address: &HashMap<IpAddr, Name>,
    key: &ServiceKey,
    (service, slice): (&Service, &EndpointSlice),
    endpoints: &mut Endpoints,
) {
    let ports = ports_of_slice(service, slice);
    for endpoint in &slice.endpoints {
        // A pod may also be known by its address only: some controllers write no targetRef.
        let by_address = || endpoint.addresses.first().and_then(|address| by_address.get(address)).cloned();
        match endpoint.pod.clone().or_else(by_address) {
            Some(name) => {
                // A pod that is not there (any more) is no endpoint; `weft_manifest::check` says so.
                if objects.pods.get(&name).is_some_and(|pod| counts(pod, endpoint, service)) {
                    endpoints.add_pod(name, key, ports.clone(), service);
                }
            }
            None => endpoints.add_other(key, slice, endpoint, (&ports, service)),
        }
    }
}

/// Health belongs to the workload and comes from the pod. A slice that knows better than the pod's own readiness (another
/// controller's check) takes the pod out of that one service.
fn counts(pod: &Pod, endpoint: &Endpoint, service: &Service) -> bool {
    !pod.is_finished() && (endpoint.ready || !pod.is_ready() || service.publish_not_ready)
}

impl Endpoints {
    fn add_pod(&mut self, pod: Name, key: &ServiceKey, ports: Vec<PortMapping>, service: &Service) {
        if serves(&ports, service) {
            merge(self.of_pods.entry(pod).or_default().entry(key.clone()).or_default(), ports);
        }
    }

    fn add_other(
        &mut self,
        key: &ServiceKey,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        (ports, service): (&[PortMapping], &Service),
    ) {
        // All addresses of one endpoint are alike; Kubernetes, too, uses the first only.
        let Some(address) = endpoint.addresses.first().copied().filter(|_| serves(ports, service)) else { return };
        let name = (slice.metadata.namespace.clone(), slice.metadata.name.clone());
        let other = self.others.entry((name, address)).or_insert_with(|| Other {
            namespace: slice.metadata.namespace.clone(),
            slice: slice.metadata.name.clone(),
            service: service.metadata.name.clone(),
            address,
            ready: endpoint.ready,
            node: endpoint.node.clone(),
            zone: endpoint.zone.clone(),
            services: Ports::new(),
        });
        merge(other.services.entry(key.clone()).or_default(), ports.to_vec());
    }
}

/// Without one of its ports an endpoint would only be chosen to fail.
fn serves(ports: &[PortMapping], service: &Service) -> bool {
    !ports.is_empty() || service.ports.is_empty()
}

/// IPv4 and IPv6 have slices of their own with the same ports.
fn merge(into: &mut Vec<PortMapping>, ports: Vec<PortMapping>) {
    into.extend(ports);
    into.sort_unstable();
    into.dedup();
}

fn ports_of_pod(service: &Service, pod: &Pod) -> Vec<PortMapping> {
    let mapping = |service_port, target_port| PortMapping { service_port, target_port };
    let ports = service.ports.iter().filter_map(|port| match &port.target {
        TargetPort::Number(number) => Some(mapping(port.port, *number)),
        TargetPort::Name(name) => pod.named_port(name).map(|number| mapping(port.port, number)),
    });
    ports.collect()
}

/// A slice names the service's ports by their names; the numbers are the endpoints' own.
fn ports_of_slice(service: &Service, slice: &EndpointSlice) -> Vec<PortMapping> {
    let mapping = |slice_port: &weft_manifest::objects::EndpointPort| {
        let port = service.ports.iter().find(|port| port.name == slice_port.name)?;
        Some(PortMapping { service_port: port.port, target_port: slice_port.port.unwrap_or(port.port) })
    };
    slice.ports.iter().filter_map(mapping).collect()
}

fn pods_by_address(objects: &Objects) -> HashMap<IpAddr, Name> {
    let own = objects.pods.values().filter(|pod| !pod.host_network && !pod.is_finished());
    own.flat_map(|pod| pod.addresses.iter().map(|address| (*address, name_of(pod)))).collect()
}

fn name_of(pod: &Pod) -> Name {
    (pod.metadata.namespace.clone(), pod.metadata.name.clone())
}
