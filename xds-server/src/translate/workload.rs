//! Pods, and endpoints that are no pods, as workloads of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_manifest::objects::{Pod, REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL};
use weft_manifest::{Conflicts, Objects};
use weft_model::enrolment::MtlsMode;
use weft_model::workload::{Health, Locality, TunnelProtocol, WorkloadType};
use weft_model::{PolicyKey, Uid, Workload};

use super::endpoints::{Name, Other, Ports};
use super::policy::{SelectedPolicy, strict_mtls_key};
use super::settings::MeshSettings;

/// Istio's own notice that a pod is captured: pods that Istio's CNI agent serves keep their place in the mesh.
const REDIRECTION_ANNOTATION: &str = "ambient.istio.io/redirection";

/// What one workload depends on besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) objects: &'a Objects,
    /// Pods that accept tunnels now.
    pub(super) captured: &'a BTreeSet<Uid>,
    pub(super) settings: &'a MeshSettings,
    pub(super) conflicts: &'a Conflicts,
    /// Pods that count as ready for want of others.
    pub(super) last_resort: &'a BTreeSet<Name>,
    /// Policies that select pods, by namespace.
    pub(super) selected: &'a BTreeMap<&'a str, Vec<SelectedPolicy<'a>>>,
}

/// The workload of a pod; none when it has ended or has no address yet.
pub(super) fn of_pod(context: &Context<'_>, pod: &Pod, services: Option<&Ports>) -> Option<Workload> {
    if pod.is_finished() || pod.addresses.is_empty() {
        return None;
    }
    let (namespace, name) = (&*pod.metadata.namespace, &*pod.metadata.name);
    let base = Workload::named(&context.settings.cluster, namespace, name);
    let (workload_type, workload_name) = owner(pod);
    let addresses = addresses(context, pod);
    Some(Workload {
        tunnel: tunnel(context, pod, &base.uid),
        network: context.settings.network.clone(),
        trust_domain: context.settings.trust_domain.clone(),
        service_account: pod.service_account.as_str().into(),
        node: pod.node.as_str().into(),
        canonical_name: label(pod, &CANONICAL_NAME).unwrap_or(&workload_name).into(),
        canonical_revision: label(pod, &CANONICAL_REVISION).unwrap_or(NO_REVISION).into(),
        workload_type,
        workload_name: workload_name.as_str().into(),
        policies: policies(context, pod),
        health: health(context, pod),
        // Without an address nobody can reach it as an endpoint.
        services: services.filter(|_| !addresses.is_empty()).cloned().unwrap_or_default(),
        addresses,
        locality: locality(context.objects, &pod.node),
        host_network: pod.host_network,
        ..base
    })
}

/// The workload of an address outside of the cluster (or of a node): reached in plain TCP.
pub(super) fn of_other(context: &Context<'_>, other: &Other) -> Workload {
    let settings = context.settings;
    let uid = format!(
        "{}/discovery.k8s.io/EndpointSlice/{}/{}/{}",
        settings.cluster, other.namespace, other.slice, other.address
    );
    let mut locality = locality(context.objects, &other.node);
    if locality.zone.is_empty() {
        locality.zone = other.zone.as_str().into();
    }
    Workload {
        uid: Uid(uid.into()),
        addresses: vec![other.address],
        network: settings.network.clone(),
        trust_domain: settings.trust_domain.clone(),
        node: other.node.as_str().into(),
        canonical_name: other.service.as_str().into(),
        canonical_revision: NO_REVISION.into(),
        workload_name: other.service.as_str().into(),
        health: if other.ready { Health::Healthy } else { Health::Unhealthy },
        services: other.services.clone(),
        locality,
        // A node's address stands for everything on the node: never look a workload up by it.
        host_network: context.objects.nodes.values().any(|node| node.addresses.contains(&other.address)),
        ..Workload::named(&settings.cluster, &other.namespace, &other.slice)
    }
}

fn health(context: &Context<'_>, pod: &Pod) -> Health {
    let last_resort = || context.last_resort.contains(&(pod.metadata.namespace.clone(), pod.metadata.name.clone()));
    if pod.is_ready() || (!context.last_resort.is_empty() && last_resort()) {
        Health::Healthy
    } else {
        Health::Unhealthy
    }
}

/// Peers use a tunnel as long as the pod's node says that it is accepted there. The label alone decides who is captured
/// (`model::enrolment`, in the capture half); what is published follows what is true in the kernel, on the way in and on the way
/// out: a pod that was un-enrolled a moment ago still takes tunnels and enforces its policies, and says so when it stops.
/// Istio's annotation is such a word only for pods that are meant to be in the mesh; nobody takes it back for us.
fn tunnel(context: &Context<'_>, pod: &Pod, uid: &Uid) -> TunnelProtocol {
    let annotated = pod.metadata.annotations.get(REDIRECTION_ANNOTATION).is_some_and(|value| value == "enabled");
    let accepted = context.captured.contains(uid) || (annotated && context.objects.enrolment(pod).is_enrolled());
    if accepted && !pod.host_network { TunnelProtocol::Hbone } else { TunnelProtocol::None }
}

/// An address that two running pods claim belongs to one of them only.
fn addresses(context: &Context<'_>, pod: &Pod) -> Vec<IpAddr> {
    let name = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    let lost = |address: &IpAddr| context.conflicts.pods.contains_key(&(name.clone(), *address));
    pod.addresses.iter().copied().filter(|address| context.conflicts.pods.is_empty() || !lost(address)).collect()
}

fn policies(context: &Context<'_>, pod: &Pod) -> Vec<PolicyKey> {
    let strict = (context.objects.mtls_mode(pod) == MtlsMode::Strict).then(strict_mtls_key);
    let selected = context.selected.get(&*pod.metadata.namespace).map(Vec::as_slice).unwrap_or_default();
    let named = selected.iter().filter(|policy| policy.selects(pod)).map(|policy| policy.key.clone());
    strict.into_iter().chain(named).collect()
}

/// Where Istio looks for a workload's canonical name ("Canonical Service"), in its order.
const CANONICAL_NAME: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
/// And for its revision.
const CANONICAL_REVISION: [&str; 3] = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
/// Istio's word for "no revision", so that its dashboards group alike.
const NO_REVISION: &str = "latest";

fn label<'a>(pod: &'a Pod, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| pod.metadata.labels.get(*name)).map(String::as_str).filter(|value| !value.is_empty())
}

/// Kind and name of what a person would call the owner: the Deployment, not its `ReplicaSet`.
fn owner(pod: &Pod) -> (WorkloadType, String) {
    let Some(owner) = &pod.metadata.controller else {
        return (WorkloadType::Pod, pod.metadata.name.clone());
    };
    let hash = pod.metadata.labels.get("pod-template-hash");
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            (WorkloadType::Deployment, deployment.unwrap_or(&owner.name).to_owned())
        }
        // A CronJob names its Jobs after the minute of their run, in 8 digits or more.
        "Job" => match owner.name.rsplit_once('-') {
            Some((cron, minute)) if minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit()) => {
                (WorkloadType::CronJob, cron.to_owned())
            }
            _ => (WorkloadType::Job, owner.name.clone()),
        },
        "Deployment" => (WorkloadType::Deployment, owner.name.clone()),
        "CronJob" => (WorkloadType::CronJob, owner.name.clone()),
        // StatefulSet, DaemonSet and everything else: Istio calls them pods, with the owner's name.
        _ => (WorkloadType::Pod, owner.name.clone()),
    }
}

fn locality(objects: &Objects, node: &str) -> Locality {
    let Some(node) = objects.nodes.get(node) else { return Locality::default() };
    let [region, zone, subzone] = [REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL].map(|name| Arc::from(node.label(name)));
    Locality { region, zone, subzone }
}
