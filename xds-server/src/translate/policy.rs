//! AuthorizationPolicy objects as policies of the mesh, and strict mTLS as one more.

use std::collections::BTreeMap;

use weft_manifest::Objects;
use weft_manifest::objects::{
    AuthorizationPolicy, PeerCondition, Pod, PolicyRule, PolicyTarget, PortCondition, STRICT_MTLS_POLICY,
};
use weft_model::authz::{Action, Group, Match, Mode, Rule, Scope, ServiceAccountMatch, StringMatch};
use weft_model::enrolment::SYSTEM_NAMESPACE;
use weft_model::{Policy, PolicyKey};

/// A policy that selects pods.
#[derive(Debug, Clone)]
pub(super) struct SelectedPolicy<'a> {
    pub(super) key: PolicyKey,
    targets: &'a [PolicyTarget],
}

impl SelectedPolicy<'_> {
    pub(super) fn selects(&self, pod: &Pod) -> bool {
        self.targets.iter().any(|target| match target {
            PolicyTarget::Pods(selector) => selector.selects(&pod.metadata.labels),
            PolicyTarget::Service(_) => false,
        })
    }
}

/// The policies that select pods, by namespace, in the order of their names.
pub(super) fn selected(objects: &Objects) -> BTreeMap<&str, Vec<SelectedPolicy<'_>>> {
    let mut selected: BTreeMap<&str, Vec<SelectedPolicy<'_>>> = BTreeMap::new();
    for policy in objects.policies.values().filter(|policy| scope(policy) == Some(Scope::Selected)) {
        let one = SelectedPolicy { key: key(policy), targets: &policy.targets };
        selected.entry(&policy.metadata.namespace).or_default().push(one);
    }
    selected
}

/// All that agents enforce, with the one that stands for strict mTLS.
pub(super) fn all(objects: &Objects) -> Vec<Policy> {
    let mut policies: Vec<Policy> = objects.policies.values().filter_map(|policy| translate(policy)).collect();
    policies.push(strict_mtls());
    policies.sort_by(|left, right| left.key.cmp(&right.key));
    policies
}

/// The policy that strict workloads name.
pub(super) fn strict_mtls_key() -> PolicyKey {
    PolicyKey::new(SYSTEM_NAMESPACE, STRICT_MTLS_POLICY)
}

/// Denies whoever has no identity. There is one for the mesh, it is always distributed, and every strict workload names it.
///
/// Not one per namespace or one for the mesh: then a permissive exception would change the policy's scope, and between two
/// messages strict workloads would be open. This way the mode of a workload changes with the workload alone (Istio has its
/// `istio_converted_static_strict` for the same reason).
fn strict_mtls() -> Policy {
    let absent = Match { not_principals: vec![StringMatch::Presence], ..Match::default() };
    Policy {
        key: strict_mtls_key(),
        scope: Scope::Selected,
        action: Action::Deny,
        mode: Mode::Enforce,
        groups: vec![Group { rules: vec![Rule { matches: vec![absent] }] }],
    }
}

fn key(policy: &AuthorizationPolicy) -> PolicyKey {
    PolicyKey::new(&policy.metadata.namespace, &policy.metadata.name)
}

/// For whom; none when only waypoints enforce it (`weft_manifest::check` says so).
fn scope(policy: &AuthorizationPolicy) -> Option<Scope> {
    if policy.targets.is_empty() {
        let everywhere = policy.metadata.namespace == SYSTEM_NAMESPACE;
        return Some(if everywhere { Scope::Global } else { Scope::Namespace });
    }
    policy.targets.iter().any(|target| matches!(target, PolicyTarget::Pods(_))).then_some(Scope::Selected)
}

fn translate(policy: &AuthorizationPolicy) -> Option<Policy> {
    Some(Policy {
        key: key(policy),
        scope: scope(policy)?,
        action: policy.action,
        mode: policy.mode,
        groups: policy.rules.iter().map(|rule| group(rule, policy.action)).collect(),
    })
}

/// `from`, each entry of `notFrom`, and `to` must all hold.
fn group(rule: &PolicyRule, action: Action) -> Group {
    let any = |matches: Vec<Match>| (!matches.is_empty()).then_some(Rule { matches });
    let from = any(rule.from.iter().map(|condition| peer(condition, action)).collect());
    let not_from = rule.not_from.iter().filter_map(|condition| any(not_peer(condition, action)));
    let to = any(rule.to.iter().map(port).collect());
    let mut rules: Vec<Rule> = from.into_iter().chain(not_from).chain(to).collect();
    if rules.is_empty() {
        rules.push(Rule::default()); // no condition: holds for everybody
    }
    Group { rules }
}

fn peer(condition: &PeerCondition, action: Action) -> Match {
    let found = Match {
        principals: condition.identities.clone(),
        namespaces: condition.namespaces.clone(),
        service_accounts: accounts(&condition.service_accounts),
        source_ips: condition.cidrs.clone(),
        not_principals: condition.not_identities.clone(),
        not_namespaces: condition.not_namespaces.clone(),
        not_service_accounts: accounts(&condition.not_service_accounts),
        not_source_ips: condition.not_cidrs.clone(),
        ..Match::default()
    };
    proven(found, action)
}

/// "Not (a and b)" is "not a, or not b".
fn not_peer(condition: &PeerCondition, action: Action) -> Vec<Match> {
    let none = Match::default;
    let parts = [
        Match { not_principals: condition.identities.clone(), ..none() },
        Match { not_namespaces: condition.namespaces.clone(), ..none() },
        Match { not_service_accounts: accounts(&condition.service_accounts), ..none() },
        Match { not_source_ips: condition.cidrs.clone(), ..none() },
    ];
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| proven(part, action)).collect()
}

/// Who comes without an identity cannot prove to be somebody else than those who are excluded, so an Allow that excludes
/// somebody by identity asks for an identity. (A Deny for all but some already denies who has none.)
fn proven(mut found: Match, action: Action) -> Match {
    let excludes =
        !found.not_principals.is_empty() || !found.not_namespaces.is_empty() || !found.not_service_accounts.is_empty();
    let asks = !found.principals.is_empty() || !found.namespaces.is_empty() || !found.service_accounts.is_empty();
    if action == Action::Allow && excludes && !asks {
        found.principals.push(StringMatch::Presence);
    }
    found
}

fn port(condition: &PortCondition) -> Match {
    Match {
        destination_ports: condition.ports.clone(),
        not_destination_ports: condition.not_ports.clone(),
        ..Match::default()
    }
}

fn accounts(pairs: &[(String, String)]) -> Vec<ServiceAccountMatch> {
    let account = |(namespace, name): &(String, String)| ServiceAccountMatch {
        namespace: namespace.as_str().into(),
        name: name.as_str().into(),
    };
    pairs.iter().map(account).collect()
}
