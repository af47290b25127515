//! Policies and one connection in, verdict out (as ztunnel evaluates them), but failing closed where
//! the reference skips a policy that it does not know.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use super::pattern::StringMatch;
use super::policy::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, ServiceAccountMatch};
use crate::mesh::Mesh;
use crate::reason::Reason;
use crate::spiffe::SpiffeId;
use crate::workload::Workload;

/// What is known of a connection when it must be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who the client proved to be: by its certificate, or (same node) by the namespace that the kernel says it
    /// came from. `None` for plaintext.
    pub identity: Option<SpiffeId>,
    /// The client's address.
    pub source: IpAddr,
    /// The application's address and port, after the port was resolved.
    pub destination: SocketAddr,
}

/// Proof that a connection was checked: only [`evaluate`] makes one, and [`Permit::of_kubelet_probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    policy: Option<PolicyKey>,
    ground: Ground,
}

/// What a connection is permitted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// The policies of its destination.
    Policies,
    /// It is a probe of the kubelet, by the word of the kernel: no policy forbids it.
    KubeletProbe,
}

impl Permit {
    /// The policy that permits; none when no Allow policy applies, and for probes.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyKey> {
        self.policy.as_ref()
    }

    /// What permits: what stands on policies must be checked again when they change.
    #[must_use]
    pub fn ground(&self) -> Ground {
        self.ground
    }

    /// For a probe of the kubelet that policies have refused for this reason. Only for a connection that the capture half has
    /// found to be one (the owner of the socket at its other end). `None`: not a refusal by policies that are known, which stays.
    #[must_use]
    pub fn of_kubelet_probe(refused: Reason) -> Option<Self> {
        let by_policy = [Reason::MtlsRequired, Reason::PolicyDenied, Reason::PolicyNotAllowed].contains(&refused);
        by_policy.then_some(Self { policy: None, ground: Ground::KubeletProbe })
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// By which policy, if one can be named.
    pub policy: Option<PolicyKey>,
}

/// What a policy in shadow mode would have done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShadowDenial {
    /// The policy that would deny; for an Allow that does not match, the first one.
    pub policy: PolicyKey,
    /// How it would.
    pub reason: Reason,
}

/// The outcome for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What counts.
    pub enforced: Result<Permit, Denial>,
    /// What would happen if the shadowed policies counted, too; `None` when they change nothing.
    pub shadow: Option<ShadowDenial>,
}

/// Decides for one connection to `destination`.
#[must_use]
pub fn evaluate(mesh: &Mesh, destination: &Workload, connection: &Connection) -> Verdict {
    let mut candidates: Vec<&Policy> = mesh.policies_of_namespace(&destination.namespace).collect();
    candidates.extend(mesh.global_policies());
    for key in &destination.policies {
        match mesh.policy(key) {
            Some(policy) => candidates.push(policy),
            None => {
                let denial = Denial { reason: Reason::PolicyUnknown, policy: Some(key.clone()) };
                return Verdict { enforced: Err(denial), shadow: None };
            }
        }
    }
    let enforced = decide(candidates.iter().copied().filter(|policy| policy.mode == Mode::Enforce), connection);
    let shadow = match &enforced {
        Ok(_) if candidates.iter().any(|policy| policy.mode == Mode::Shadow) => {
            decide(candidates.iter().copied(), connection).err().and_then(as_shadow)
        }
        _ => None,
    };
    Verdict { enforced, shadow }
}

fn as_shadow(denial: Denial) -> Option<ShadowDenial> {
    denial.policy.map(|policy| ShadowDenial { policy, reason: denial.reason })
}

/// Deny first, then Allow; without any Allow everything is permitted.
fn decide<'a>(policies: impl Iterator<Item = &'a Policy> + Clone, connection: &Connection) -> Result<Permit, Denial> {
    let of = |action| policies.clone().filter(move |policy| policy.action == action);
    if let Some(policy) = of(Action::Deny).find(|policy| matches(policy, connection)) {
        let reason = if is_strict_mtls(policy) { Reason::MtlsRequired } else { Reason::PolicyDenied };
        return Err(Denial { reason, policy: Some(policy.key.clone()) });
    }
    let Some(first) = of(Action::Allow).next() else {
        return Ok(Permit { policy: None, ground: Ground::Policies });
    };
    match of(Action::Allow).find(|policy| matches(policy, connection)) {
        Some(policy) => Ok(Permit { policy: Some(policy.key.clone()), ground: Ground::Policies }),
        None => Err(Denial { reason: Reason::PolicyNotAllowed, policy: Some(first.key.clone()) }),
    }
}

/// "Deny whoever has no identity" and nothing else: strict mode, however it was spelled.
fn is_strict_mtls(policy: &Policy) -> bool {
    let absent = Match { not_principals: vec![StringMatch::Presence], ..Match::default() };
    policy.groups.iter().all(|group| group.rules.iter().flat_map(|rule| &rule.matches).any(|found| *found == absent))
}

fn matches(policy: &Policy, connection: &Connection) -> bool {
    policy.groups.iter().any(|group| group_matches(group, connection))
}

fn group_matches(group: &Group, connection: &Connection) -> bool {
    group.rules.iter().all(|rule| rule_matches(rule, connection))
}

fn rule_matches(rule: &Rule, connection: &Connection) -> bool {
    rule.matches.is_empty() || rule.matches.iter().any(|found| match_holds(found, connection))
}

fn match_holds(rule: &Match, connection: &Connection) -> bool {
    let identity = connection.identity.as_ref();
    let principal = identity.map(SpiffeId::principal);
    let text = |patterns: &[StringMatch], value: Option<&str>| {
        value.is_some_and(|value| patterns.iter().any(|pattern| pattern.matches(value)))
    };
    let account = |accounts: &[ServiceAccountMatch]| {
        identity.is_some_and(|id| accounts.iter().any(|account| same_account(account, id)))
    };
    let inside = |nets: &[IpNet], address: IpAddr| nets.iter().any(|net| net.contains(&address));
    let namespace = identity.map(SpiffeId::namespace);
    let (source, target) = (connection.source.to_canonical(), connection.destination.ip().to_canonical());
    let port = connection.destination.port();

    let positive = |list_is_empty: bool, found: bool| list_is_empty || found;
    !rule.is_empty()
        && positive(rule.namespaces.is_empty(), text(&rule.namespaces, namespace))
        && positive(rule.principals.is_empty(), text(&rule.principals, principal.as_deref()))
        && positive(rule.service_accounts.is_empty(), account(&rule.service_accounts))
        && positive(rule.source_ips.is_empty(), inside(&rule.source_ips, source))
        && positive(rule.destination_ips.is_empty(), inside(&rule.destination_ips, target))
        && positive(rule.destination_ports.is_empty(), rule.destination_ports.contains(&port))
        && !text(&rule.not_namespaces, namespace)
        && !text(&rule.not_principals, principal.as_deref())
        && !account(&rule.not_service_accounts)
        && !inside(&rule.not_source_ips, source)
        && !inside(&rule.not_destination_ips, target)
        && !rule.not_destination_ports.contains(&port)
}

fn same_account(account: &ServiceAccountMatch, id: &SpiffeId) -> bool {
    &*account.namespace == id.namespace() && &*account.name == id.service_account()
}
