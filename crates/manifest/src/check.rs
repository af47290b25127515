//! What only shows when all objects are seen together: addresses claimed twice, names that lead nowhere, rules that nobody
//! can enforce. Pure; the same for the server, the node agent and `weft lint`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_model::enrolment::{MESH_LABEL, NEVER};

use crate::finding::{Finding, Place, Severity};
use crate::objects::{Kind, ObjectKey, Objects, Pod, PolicyTarget, Service, TargetPort, contains};

/// `(namespace, name)`.
type Name = (String, String);

/// Addresses that an object claims, but that belong to another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conflicts {
    /// Addresses that a pod does not get, with who has them.
    pub pods: BTreeMap<(Name, IpAddr), Name>,
    /// VIPs that a service does not get, with who has them.
    pub services: BTreeMap<(Name, IpAddr), Name>,
}

/// Who has an address that two claim. Of pods the ready one, then the one that stays, of equals (and of services) the
/// first by name: alike on every server, whatever the order of arrival.
#[must_use]
pub fn conflicts(objects: &Objects) -> Conflicts {
    let mut conflicts = Conflicts::default();
    let pods = objects.pods.iter().filter(|(_, pod)| !pod.host_network && !pod.is_finished());
    let mut claims: BTreeMap<IpAddr, Vec<(&Name, &Arc<Pod>)>> = BTreeMap::new();
    for (name, pod) in pods {
        for address in distinct(&pod.addresses) {
            claims.entry(address).or_default().push((name, pod));
        }
    }
    for (address, mut claimants) in claims {
        claimants.sort_by_key(|(_, pod)| (!pod.is_ready(), pod.metadata.deleting)); // stable: the names stay in order
        if let Some(((owner, _), rest)) = claimants.split_first() {
            for (name, _) in rest {
                conflicts.pods.insert(((*name).clone(), address), (*owner).clone());
            }
        }
    }
    let mut owners: BTreeMap<IpAddr, &Name> = BTreeMap::new();
    for (name, service) in objects.services.iter().filter(|(_, service)| !service.external_name) {
        for address in distinct(&service.cluster_ips) {
            let owner = *owners.entry(address).or_insert(name);
            if owner != name {
                conflicts.services.insert((name.clone(), address), owner.clone());
            }
        }
    }
    conflicts
}

fn distinct(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
}

/// Everything that is doubtful about the objects together.
#[must_use]
pub fn check(objects: &Objects) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_conflicts(objects, &mut findings);
    check_enrolment(objects, &mut findings);
    check_services(objects, &mut findings);
    check_slices(objects, &mut findings);
    check_policies(objects, &mut findings);
    findings
}

fn check_conflicts(objects: &Objects, findings: &mut Vec<Finding>) {
    let found = conflicts(objects);
    for (((namespace, name), address), (owner_namespace, owner)) in &found.pods {
        let problem = format!(
            "{address} is also the address of the running pod {owner_namespace}/{owner}, which keeps it; expected one pod \
             per address"
        );
        findings.push(about(objects, (Kind::Pod, namespace, name), "status.podIPs", Severity::Error, problem));
    }
    for (((namespace, name), address), (owner_namespace, owner)) in &found.services {
        let problem = format!(
            "{address} is also an address of the service {owner_namespace}/{owner}, which keeps it; expected one service \
             per address"
        );
        findings.push(about(objects, (Kind::Service, namespace, name), "spec.clusterIPs", Severity::Error, problem));
    }
}

fn check_enrolment(objects: &Objects, findings: &mut Vec<Finding>) {
    let field = format!("metadata.labels.{MESH_LABEL}");
    for (name, namespace) in &objects.namespaces {
        if NEVER.contains(&name.as_str())
            && namespace.metadata.labels.get(MESH_LABEL).is_some_and(|value| value == "enabled")
        {
            let problem = "has no effect: this namespace is never captured, the cluster could not start without it";
            findings.push(about(objects, (Kind::Namespace, "", name), &field, Severity::Warning, problem.to_owned()));
        }
    }
    for ((namespace, name), pod) in &objects.pods {
        if pod.host_network && pod.metadata.labels.get(MESH_LABEL).is_some_and(|value| value == "enabled") {
            let problem = "has no effect: the pod shares the node's network, which is not captured";
            findings.push(about(objects, (Kind::Pod, namespace, name), &field, Severity::Warning, problem.to_owned()));
        }
    }
}

/// A targetPort that no pod has is a misspelt one.
fn check_services(objects: &Objects, findings: &mut Vec<Finding>) {
    for ((namespace, name), service) in &objects.services {
        let wanted = service.ports.iter().enumerate().filter_map(|(index, port)| match &port.target {
            TargetPort::Name(target) => Some((index, target)),
            TargetPort::Number(_) => None,
        });
        for (index, target) in wanted {
            let pods: Vec<_> = selected_pods(objects, namespace, service).collect();
            if !pods.is_empty() && pods.iter().all(|pod| pod.named_port(target).is_none()) {
                let problem = format!("no pod that the service selects has a container port named '{target}'");
                let field = format!("spec.ports[{index}].targetPort");
                findings.push(about(objects, (Kind::Service, namespace, name), &field, Severity::Warning, problem));
            }
        }
    }
}

/// The pods that a service's selector means; none if it has no selector.
pub fn selected_pods<'a>(
    objects: &'a Objects,
    namespace: &'a str,
    service: &'a Service,
) -> impl Iterator<Item = &'a Arc<Pod>> {
    let selects = move |pod: &Pod| !service.selector.is_empty() && contains(&pod.metadata.labels, &service.selector);
    pods_in(objects, namespace).filter(move |pod| selects(pod) && !pod.is_finished())
}

fn pods_in<'a>(objects: &'a Objects, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
    let from = (namespace.to_owned(), String::new());
    objects.pods.range(from..).take_while(move |((other, _), _)| other == namespace).map(|(_, pod)| pod)
}

fn check_slices(objects: &Objects, findings: &mut Vec<Finding>) {
    for ((namespace, name), slice) in &objects.slices {
        let key = (Kind::EndpointSlice, namespace.as_str(), name.as_str());
        let service = slice.service();
        if !service.is_some_and(|service| objects.services.contains_key(&(namespace.clone(), service.to_owned()))) {
            let problem = match service {
                Some(service) => format!("belongs to the service {namespace}/{service}, which is not there; ignored"),
                None => "belongs to no service (no label kubernetes.io/service-name); ignored".to_owned(),
            };
            findings.push(about(objects, key, "metadata.labels", Severity::Note, problem));
            continue;
        }
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            let Some(pod) = &endpoint.pod else { continue };
            if !objects.pods.contains_key(pod) {
                let problem = format!("the pod {}/{} is not there; the endpoint is left out", pod.0, pod.1);
                let field = format!("endpoints[{index}].targetRef");
                findings.push(about(objects, key, &field, Severity::Warning, problem));
            }
        }
    }
}

fn check_policies(objects: &Objects, findings: &mut Vec<Finding>) {
    for ((namespace, name), policy) in &objects.policies {
        let key = (Kind::AuthorizationPolicy, namespace.as_str(), name.as_str());
        for (index, target) in policy.targets.iter().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            match target {
                PolicyTarget::Service(service) => {
                    let problem = format!(
                        "is not enforced: policies for the service '{service}' need a waypoint, which this version of Weft does \
                         not have; expected kind Pod with a selector"
                    );
                    findings.push(about(objects, key, &field, Severity::Error, problem));
                }
                PolicyTarget::Pods(selector) => {
                    if !pods_in(objects, namespace).any(|pod| selector.selects(&pod.metadata.labels)) {
                        let problem = "selects no pod at present".to_owned();
                        findings.push(about(objects, key, &field, Severity::Note, problem));
                    }
                }
            }
        }
    }
}

fn about(
    objects: &Objects,
    (kind, namespace, name): (Kind, &str, &str),
    field: &str,
    severity: Severity,
    problem: String,
) -> Finding {
    let key = ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let place = objects.place(&key).cloned().unwrap_or_else(|| Place::whole_file(""));
    Finding { place, severity, object: key.to_string(), field: field.to_owned(), problem }
}

#[cfg(test)]
mod tests;
