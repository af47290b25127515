//! The promises, each as a question to the world.

use std::collections::BTreeMap;

use weft_model::authz::{Connection, evaluate};
use weft_model::{Mesh, Resource, SpiffeId};
use weft_node_agent::outbound::TunnelPlan;
use weft_wire::convert::{ResourceType, encode};
use weft_wire::proto::discovery::DeltaDiscoveryResponse;

use crate::server::Server;
use crate::truth::{NODES, PODS, PodFacts, Truth};

/// A promise that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Promise 1.
    #[error(
        "plaintext {way} {pod} past the mesh, though it has been selected and captured without a break since version {since}"
    )]
    Plaintext {
        /// Which pod.
        pod: &'static str,
        /// In or out.
        way: &'static str,
        /// Since when.
        since: usize,
    },
    /// Promise 1: a pod of the mesh is taken for a stranger.
    #[error("{from}'s agent has never heard of {to}, or has forgotten it, and would speak plaintext to it")]
    Forgotten {
        /// Who calls.
        from: &'static str,
        /// Who is called.
        to: &'static str,
    },
    /// Promise 1: somebody else might be at the other end.
    #[error("a tunnel to {to} would accept other identities than its own: {peers}")]
    WrongPeer {
        /// Who is called.
        to: &'static str,
        /// Who would be accepted.
        peers: String,
    },
    /// Promise 2.
    #[error("a connection to {to} from {who} is permitted, though no version from {floor} to {now} permits it")]
    NoPolicy {
        /// Who is called.
        to: &'static str,
        /// Who calls.
        who: String,
        /// The oldest version that the agent may go by.
        floor: usize,
        /// The newest one.
        now: usize,
    },
    /// Promise 2: a workload would refuse everybody, or be open, for want of a policy.
    #[error("node {node} holds {workload}, which names the policy {policy}, and does not hold the policy")]
    PolicyMissing {
        /// Which node.
        node: usize,
        /// Which workload.
        workload: String,
        /// Which policy.
        policy: String,
    },
    /// Promise 3.
    #[error("node {node} has acknowledged {name}, but holds something else")]
    NotInForce {
        /// Which node.
        node: usize,
        /// Which resource.
        name: String,
    },
    /// All faults are healed, and still.
    #[error("after all faults were healed: {what}")]
    NotHealed {
        /// What is wrong.
        what: String,
    },
}

/// Promise 1, at a pod's own packet filter. `steady_since`: the version since which it has been captured without a break.
///
/// # Errors
/// See [`Broken`].
pub fn may_go_direct(steady_since: Option<usize>, pod: usize, way: &'static str) -> Result<(), Broken> {
    match steady_since {
        Some(since) => Err(Broken::Plaintext { pod: PODS[pod].name, way, since }),
        None => Ok(()),
    }
}

/// Promise 1: who may answer a tunnel.
///
/// # Errors
/// See [`Broken`].
pub fn peer_is_right(plan: &TunnelPlan, to: usize) -> Result<(), Broken> {
    let own = format!("/ns/{}/sa/{}", PODS[to].namespace, PODS[to].name);
    if plan.peers.iter().all(|peer| peer.to_string().ends_with(&own)) {
        return Ok(());
    }
    Err(Broken::WrongPeer { to: PODS[to].name, peers: format!("{:?}", plan.peers) })
}

/// Promise 1, of what an agent holds that has known everybody. No pod comes or goes in a run, so it forgets none, whatever a
/// control plane says that has not read its source, unless it has said so for long enough.
///
/// # Errors
/// See [`Broken`].
pub fn nobody_is_forgotten(mesh: &Mesh, node: usize) -> Result<(), Broken> {
    let known = |to: &&PodFacts| mesh.workload(&to.uid()).is_some();
    match PODS.iter().find(|to| !known(to)) {
        Some(to) => Err(Broken::Forgotten { from: NODES[node], to: to.name }),
        None => Ok(()),
    }
}

/// Promise 2, of what an agent holds.
///
/// # Errors
/// See [`Broken`].
pub fn policies_are_there(mesh: &Mesh, node: usize) -> Result<(), Broken> {
    for workload in mesh.workloads() {
        if let Some(policy) = workload.policies.iter().find(|policy| mesh.policy(policy).is_none()) {
            let (workload, policy) = (workload.uid.to_string(), policy.to_string());
            return Err(Broken::PolicyMissing { node, workload, policy });
        }
    }
    Ok(())
}

/// Promise 2, of a connection that an agent has let in that may go by no version before `floor`. `proved`: who has called,
/// whatever the agent took for it.
///
/// # Errors
/// See [`Broken`].
pub fn permit_has_a_policy(
    truth: &Truth,
    floor: Option<usize>,
    to: usize,
    (proved, admitted): (Option<SpiffeId>, &Connection),
) -> Result<(), Broken> {
    let connection = &Connection { identity: proved, ..admitted.clone() };
    let (floor, now) = (floor.unwrap_or(truth.now()), truth.now());
    let permits = |version: usize| {
        let mesh = &truth.version(version).mesh;
        let workload = mesh.workload(&PODS[to].uid());
        workload.is_some_and(|workload| evaluate(mesh, workload, connection).enforced.is_ok())
    };
    if (floor..=now).any(permits) {
        return Ok(());
    }
    let who =
        connection.identity.as_ref().map_or_else(|| format!("plaintext {}", connection.source), ToString::to_string);
    Err(Broken::NoPolicy { to: PODS[to].name, who, floor, now })
}

/// Promise 3, of a response that is being acknowledged.
///
/// # Errors
/// See [`Broken`].
pub fn answer_is_in_force(response: &DeltaDiscoveryResponse, mesh: &Mesh, node: usize) -> Result<(), Broken> {
    let Some(kind) = ResourceType::from_url(&response.type_url) else { return Ok(()) };
    let in_force = versions(mesh);
    let version = |name: &String| in_force.get(&(kind, name.clone()));
    let stale = response.resources.iter().find(|one| version(&one.name) != Some(&one.version)).map(|one| &one.name);
    match stale.or_else(|| response.removed_resources.iter().find(|name| version(name).is_some())) {
        Some(name) => Err(Broken::NotInForce { node, name: name.clone() }),
        None => Ok(()),
    }
}

/// Promise 3. Called when everything that was due was sent and acknowledged.
///
/// # Errors
/// See [`Broken`].
pub fn acknowledged_is_in_force(server: &Server, mesh: &Mesh, node: usize) -> Result<(), Broken> {
    let in_force = versions(mesh);
    // What another control plane takes for held is its own affair.
    for ((kind, name), version) in in_force.iter().filter(|_| server.is_ours()) {
        let held = server.session(node, *kind).and_then(|session| session.held(name));
        if held.is_none_or(|held| **held != **version) {
            return Err(Broken::NotInForce { node, name: name.clone() });
        }
    }
    let served = server.mesh().map(versions).unwrap_or_default();
    match served.iter().find(|(name, version)| in_force.get(*name) != Some(*version)) {
        Some(((_, name), _)) => Err(Broken::NotInForce { node, name: name.clone() }),
        None => Ok(()),
    }
}

fn versions(mesh: &Mesh) -> BTreeMap<(ResourceType, String), String> {
    let workloads = mesh.workloads().map(|one| Resource::Workload((**one).clone()));
    let services = mesh.services().map(|one| Resource::Service((**one).clone()));
    let policies = mesh.policies().map(|one| Resource::Policy((**one).clone()));
    let all = workloads.chain(services).chain(policies);
    all.map(|one| ((ResourceType::of(&one), one.key().to_string()), encode(&one).version.to_string())).collect()
}
