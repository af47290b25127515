//! Pod, as far as Weft reads it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use super::metadata::{Metadata, NETNS_ANNOTATION, check_name};
use super::probe::probed_ports;
use crate::fields::At;

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Names, labels, annotations, owner.
    pub metadata: Metadata,
    /// The node that it is bound to; empty when it is not yet.
    pub node: String,
    /// Its service account.
    pub service_account: String,
    /// It shares the node's network.
    pub host_network: bool,
    /// The named TCP ports of its containers.
    pub named_ports: Vec<NamedPort>,
    /// The ports that the kubelet calls: of probes, and of hooks at the start and the end of a container.
    pub probe_ports: BTreeSet<u16>,
    /// Its addresses, the first one first.
    pub addresses: Vec<IpAddr>,
    /// How far it is.
    pub phase: Phase,
    /// The `Ready` condition, where the file has one.
    pub ready_condition: Option<bool>,
    /// Everything that makes it ready is true: `ContainersReady`, and the conditions that its readiness gates name.
    pub ready_by_itself: bool,
    /// The condition [`CAPTURED_CONDITION`], where there is one: what counts on Kubernetes, and nothing elsewhere.
    pub captured: Option<bool>,
}

/// The condition that says whether a pod is in the mesh now.
pub const CAPTURED_CONDITION: &str = "weft.dev/captured";

/// A port of a container that services can name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The number.
    pub port: u16,
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum Phase {
    /// The file does not say (written by hand), or the kubelet cannot.
    #[default]
    Unknown,
    /// Not all containers have started.
    Pending,
    /// Runs.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// What Kubernetes fills in for pods that name none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

impl Pod {
    /// What tells this life of the pod from others of the same name: its uid; `namespace/name` where the file has none.
    #[must_use]
    pub fn uid(&self) -> String {
        let named = || format!("{}/{}", self.metadata.namespace, self.metadata.name);
        self.metadata.uid.clone().unwrap_or_else(named)
    }

    /// Where its network namespace is (annotation `weft.dev/netns`): a name under `/run/netns`, or an absolute path.
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        self.metadata.annotations.get(NETNS_ANNOTATION).map(String::as_str)
    }

    /// It has ended and will not run again; its addresses may belong to another pod by now.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// New connections may go to it. A hand-written file without conditions and phase counts as running.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let runs = matches!(self.phase, Phase::Running | Phase::Unknown);
        !self.metadata.deleting && !self.is_finished() && self.ready_condition.unwrap_or(runs)
    }

    /// Not ready only because nothing is heard of its node. The node controller then takes back the one condition `Ready`
    /// (`MarkPodsNotReady` in Kubernetes' `controller_utils.go`); what the kubelet said last stays in the others.
    #[must_use]
    pub fn is_ready_but_for_its_node(&self) -> bool {
        !self.metadata.deleting && !self.is_finished() && self.ready_condition == Some(false) && self.ready_by_itself
    }

    /// The number of a container port.
    #[must_use]
    pub fn named_port(&self, name: &str) -> Option<u16> {
        port_of(&self.named_ports, name)
    }
}

fn port_of(named: &[NamedPort], name: &str) -> Option<u16> {
    named.iter().find(|port| port.name == name).map(|port| port.port)
}

pub(super) fn read(root: &At<'_>, metadata: Metadata) -> Pod {
    root.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let (spec, status) = (root.field("spec"), root.field("status"));
    spec.only(&SPEC_FIELDS);
    // Machines write the status and it grows with versions, but a misspelt address would make the pod vanish.
    status.no_misspelt(&STATUS_FIELDS_READ);
    // `serviceAccount` is the old name, still written by API servers beside the new one.
    let account = spec.field("serviceAccountName");
    let account_text = account.text().or(spec.field("serviceAccount").text()).filter(|name| !name.is_empty());
    let service_account = account_text.unwrap_or(DEFAULT_SERVICE_ACCOUNT);
    check_name(&account, service_account, 253, true);
    let mut containers = spec.field("containers").items();
    // A sidecar is an init container that stays; its ports count. An ordinary one's ports are gone when the pod runs.
    let init = spec.field("initContainers").items();
    containers.extend(init.into_iter().filter(|at| at.field("restartPolicy").text() == Some("Always")));
    let named_ports: Vec<Vec<NamedPort>> = containers.iter().map(named_ports).collect();
    let probe_ports =
        containers.iter().zip(&named_ports).flat_map(|(at, own)| probed_ports(at, |name| port_of(own, name)));
    let probe_ports = probe_ports.collect();
    let conditions = status.field("conditions");
    let gates = spec.field("readinessGates").items();
    let gates = gates.iter().map(|gate| gate.field("conditionType").text());
    let is_true = |name: &str| condition(&conditions, name);
    Pod {
        metadata,
        node: spec.field("nodeName").owned_text(),
        service_account: service_account.to_owned(),
        host_network: spec.field("hostNetwork").boolean().unwrap_or_default(),
        named_ports: named_ports.into_iter().flatten().collect(),
        probe_ports,
        addresses: addresses(&status),
        phase: phase(&status.field("phase")),
        ready_condition: condition(&conditions, "Ready"),
        ready_by_itself: gates.chain([Some("ContainersReady")]).all(|name| name.and_then(is_true) == Some(true)),
        captured: condition(&conditions, CAPTURED_CONDITION),
    }
}

fn named_ports(container: &At<'_>) -> Vec<NamedPort> {
    container.only(&CONTAINER_FIELDS);
    let mut named = Vec::new();
    for port in container.field("ports").items() {
        port.only(&["containerPort", "hostIP", "hostPort", "name", "protocol"]);
        let number = port.field("containerPort");
        if !number.is_present() {
            number.error("is missing; expected a port number from 1 to 65535");
        }
        let tcp = matches!(port.field("protocol").text(), None | Some("TCP"));
        if let (Some(name), Some(number), true) = (port.field("name").text(), number.port(), tcp) {
            named.push(NamedPort { name: name.to_owned(), port: number });
        }
    }
    named
}

fn addresses(status: &At<'_>) -> Vec<IpAddr> {
    let list = status.field("podIPs").items();
    let mut addresses: Vec<IpAddr> = list.iter().filter_map(|item| item.field("ip").address()).collect();
    if addresses.is_empty() {
        addresses.extend(
            status.field("podIP").text().filter(|text| !text.is_empty()).and_then(|_| status.field("podIP").address()),
        );
    }
    addresses
}

fn phase(at: &At<'_>) -> Phase {
    let words = [
        ("Pending", Phase::Pending),
        ("Running", Phase::Running),
        ("Succeeded", Phase::Succeeded),
        ("Failed", Phase::Failed),
        ("Unknown", Phase::Unknown),
    ];
    at.word(&words).unwrap_or_default()
}

fn condition(conditions: &At<'_>, name: &str) -> Option<bool> {
    let conditions = conditions.items();
    let condition = conditions.iter().find(|condition| condition.field("type").text() == Some(name))?;
    condition.field("status").word(&[("True", true), ("False", false), ("Unknown", false)])
}

const STATUS_FIELDS_READ: [&str; 8] =
    ["conditions", "phase", "podIP", "podIPs", "hostIP", "hostIPs", "containerStatuses", "observedGeneration"];

/// Fields of `PodSpec` (every field of Kubernetes 1.33 to 1.37, compared with its OpenAPI by way of k8s-openapi 0.29).
const SPEC_FIELDS: [&str; 44] = [
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "evictionResponders",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "schedulingGroup",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
    "workloadRef",
];

/// Fields of `Container` (Kubernetes 1.34 to 1.37).
const CONTAINER_FIELDS: [&str; 25] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
