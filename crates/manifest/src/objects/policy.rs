//! AuthorizationPolicy (`weft.dev/v1alpha1`): who may connect to whom. Examples: `docs/resources.md`.
//!
//! Read strictly, for a misread policy protects nothing: unknown fields, empty lists and entries without condition are
//! faults, and conditions that the node agent cannot evaluate (HTTP) are refused where the agent enforces.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weft_model::authz::{Action, Mode, StringMatch};
use weft_model::spiffe::SpiffeId;

use super::metadata::Metadata;
use super::selector::{self, Selector};
use crate::fields::At;

/// The policy that stands for strict mTLS; always distributed, in Weft's own namespace, and named by strict workloads.
pub const STRICT_MTLS_POLICY: &str = "weft-strict-mtls";
/// Names that begin so are Weft's own.
pub const RESERVED_POLICY_PREFIX: &str = "weft-strict-mtls";

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorizationPolicy {
    /// Names and labels.
    pub metadata: Metadata,
    /// Counts up with every change of the spec; none in hand-written files.
    pub generation: Option<u64>,
    /// For whom; empty: every workload of the namespace, in `weft-system` of the mesh.
    pub targets: Vec<PolicyTarget>,
    /// What a match means.
    pub action: Action,
    /// Whether it counts.
    pub mode: Mode,
    /// The alternatives. Allow without any is default-deny.
    pub rules: Vec<PolicyRule>,
}

/// One entry of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PolicyTarget {
    /// The pods of the policy's namespace that the selector means: layer 4, at the agent.
    Pods(Selector),
    /// A Service: layer 7, at its waypoint.
    Service(String),
}

/// One rule; its fields must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyRule {
    /// The client is one of these; empty: anybody.
    pub from: Vec<PeerCondition>,
    /// The client is none of these.
    pub not_from: Vec<PeerCondition>,
    /// The connection goes to one of these; empty: anywhere.
    pub to: Vec<PortCondition>,
}

/// Conditions about the client that must all hold: of each positive list one value, of each negative list none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PeerCondition {
    /// Identities without `spiffe://`; `*` at one end is a wildcard.
    pub identities: Vec<StringMatch>,
    /// Namespaces; `*` at one end is a wildcard.
    pub namespaces: Vec<StringMatch>,
    /// Service accounts, as `(namespace, name)`.
    pub service_accounts: Vec<(String, String)>,
    /// Source addresses.
    pub cidrs: Vec<IpNet>,
    /// Not these identities.
    pub not_identities: Vec<StringMatch>,
    /// Not these namespaces.
    pub not_namespaces: Vec<StringMatch>,
    /// Not these service accounts.
    pub not_service_accounts: Vec<(String, String)>,
    /// Not these source addresses.
    pub not_cidrs: Vec<IpNet>,
}

/// Conditions about the destination.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PortCondition {
    /// One of these ports of the workload.
    pub ports: Vec<u16>,
    /// None of these.
    pub not_ports: Vec<u16>,
}

/// What only a waypoint can evaluate.
const HTTP_FIELDS: [&str; 10] =
    ["methods", "notMethods", "paths", "notPaths", "hosts", "notHosts", "headers", "notHeaders", "claims", "notClaims"];

pub(super) fn read(root: &At<'_>, metadata: Metadata) -> AuthorizationPolicy {
    root.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let spec = root.field("spec");
    if !spec.is_present() {
        spec.error("is missing; expected targetRefs, action, mode or rules ('spec: {}' is default-deny)");
    }
    spec.only(&["targetRefs", "action", "mode", "rules"]);
    if metadata.name.starts_with(RESERVED_POLICY_PREFIX) {
        let name = root.field("metadata").field("name");
        name.error(format!("names that begin with '{RESERVED_POLICY_PREFIX}' are Weft's own; expected another one"));
    }
    let targets: Vec<PolicyTarget> = spec.field("targetRefs").filled_items().iter().filter_map(target).collect();
    let agent_enforces = targets.is_empty() || targets.iter().any(|target| matches!(target, PolicyTarget::Pods(_)));
    let action =
        spec.field("action").word(&[("Allow", Action::Allow), ("Deny", Action::Deny)]).unwrap_or(Action::Allow);
    let rules_at = spec.field("rules");
    // Here the empty list has one meaning only: no rule matches.
    let rules: Vec<PolicyRule> = rules_at.items().iter().map(|at| rule(at, agent_enforces)).collect();
    if rules.is_empty() && action == Action::Deny {
        rules_at
            .error("a Deny without rules denies nothing; expected at least one rule (one without fields matches all)");
    }
    AuthorizationPolicy {
        metadata,
        generation: root.field("metadata").field("generation").count(),
        targets,
        action,
        mode: spec.field("mode").word(&[("Enforce", Mode::Enforce), ("Shadow", Mode::Shadow)]).unwrap_or_default(),
        rules,
    }
}

fn target(at: &At<'_>) -> Option<PolicyTarget> {
    at.only(&["group", "kind", "name", "selector"]);
    let group = at.field("group");
    if !matches!(group.text(), None | Some("" | "core")) {
        group.error(format!("is '{}'; expected '' (the group of Pod and Service)", group.owned_text()));
    }
    let (kind, name, selector) = (at.field("kind"), at.field("name"), at.field("selector"));
    kind.required_text();
    match kind.word(&[("Pod", true), ("Service", false)])? {
        true => {
            if name.is_present() {
                name.error("pods come and go; expected a selector instead");
            } else if !selector.is_present() {
                selector.error("is missing; expected matchLabels or matchExpressions");
            }
            Some(PolicyTarget::Pods(selector::read(&selector)))
        }
        false => {
            if selector.is_present() {
                selector.error("selects pods; expected the name of the Service instead");
            }
            Some(PolicyTarget::Service(name.required_text().to_owned()))
        }
    }
}

fn rule(at: &At<'_>, agent_enforces: bool) -> PolicyRule {
    at.only(&["from", "notFrom", "to"]);
    PolicyRule {
        from: at.field("from").filled_items().iter().map(peer).collect(),
        not_from: at.field("notFrom").filled_items().iter().map(not_peer).collect(),
        to: at.field("to").filled_items().iter().map(|at| port_condition(at, agent_enforces)).collect(),
    }
}

fn peer(at: &At<'_>) -> PeerCondition {
    at.only(&[
        "identities",
        "namespaces",
        "serviceAccounts",
        "cidrs",
        "notIdentities",
        "notNamespaces",
        "notServiceAccounts",
        "notCidrs",
    ]);
    let condition = PeerCondition {
        not_identities: list(&at.field("notIdentities"), identity),
        not_namespaces: list(&at.field("notNamespaces"), pattern),
        not_service_accounts: list(&at.field("notServiceAccounts"), service_account),
        not_cidrs: list(&at.field("notCidrs"), cidr),
        ..positive(at)
    };
    if condition == PeerCondition::default() {
        at.error("has no condition; expected identities, namespaces, serviceAccounts or cidrs (or their not-forms)");
    }
    condition
}

/// An entry of `notFrom` negates already; two negations in one entry would only confuse.
fn not_peer(at: &At<'_>) -> PeerCondition {
    at.only(&["identities", "namespaces", "serviceAccounts", "cidrs"]);
    let condition = positive(at);
    if condition == PeerCondition::default() {
        at.error("has no condition; expected identities, namespaces, serviceAccounts or cidrs");
    }
    condition
}

fn positive(at: &At<'_>) -> PeerCondition {
    PeerCondition {
        identities: list(&at.field("identities"), identity),
        namespaces: list(&at.field("namespaces"), pattern),
        service_accounts: list(&at.field("serviceAccounts"), service_account),
        cidrs: list(&at.field("cidrs"), cidr),
        ..PeerCondition::default()
    }
}

fn port_condition(at: &At<'_>, agent_enforces: bool) -> PortCondition {
    let known: Vec<&str> = ["ports", "notPorts"].into_iter().chain(HTTP_FIELDS).collect();
    at.only(&known);
    let http: Vec<At<'_>> = HTTP_FIELDS.iter().map(|name| at.field(name)).filter(At::is_present).collect();
    if agent_enforces {
        for field in &http {
            field.error("is about HTTP, which the node agent does not read; expected targetRefs to name a Service");
        }
    }
    let condition =
        PortCondition { ports: list(&at.field("ports"), At::port), not_ports: list(&at.field("notPorts"), At::port) };
    if condition == PortCondition::default() && http.is_empty() {
        at.error("has no condition; expected ports or notPorts");
    }
    condition
}

fn list<'a, T>(at: &At<'a>, read: impl Fn(&At<'a>) -> Option<T>) -> Vec<T> {
    at.filled_items().iter().filter_map(read).collect()
}

/// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, with or without the scheme; or with one `*` at one end.
fn identity(at: &At<'_>) -> Option<StringMatch> {
    let text = at.text()?;
    let principal = text.strip_prefix("spiffe://").unwrap_or(text);
    let found = pattern_of(principal).filter(|found| match found {
        StringMatch::Exact(exact) => format!("spiffe://{exact}").parse::<SpiffeId>().is_ok(),
        _ => true,
    });
    if found.is_none() {
        at.error(format!(
            "is '{text}'; expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT, or one * at one end of it"
        ));
    }
    found
}

fn pattern(at: &At<'_>) -> Option<StringMatch> {
    let text = at.text()?;
    let found = pattern_of(text).filter(|_| !text.contains('/'));
    if found.is_none() {
        at.error(format!("is '{text}'; expected a namespace, or one * at one end of it"));
    }
    found
}

/// A star counts at one end only; elsewhere it would be taken literally and never match.
fn pattern_of(text: &str) -> Option<StringMatch> {
    (!text.is_empty() && text.matches('*').count() <= 1)
        .then(|| StringMatch::parse(text))
        .filter(|found| !matches!(found, StringMatch::Exact(exact) if exact.contains('*')))
}

fn service_account(at: &At<'_>) -> Option<(String, String)> {
    let text = at.text()?;
    let parts = text.split_once('/').filter(|(namespace, name)| {
        // Whatever cannot be in an identity can never match.
        SpiffeId::new("any", namespace, name).is_ok()
    });
    if parts.is_none() {
        at.error(format!("is '{text}'; expected NAMESPACE/NAME of a service account"));
    }
    parts.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

/// A range, or a single address.
fn cidr(at: &At<'_>) -> Option<IpNet> {
    let text = at.text()?;
    let range = text.parse().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok());
    match range {
        Some(range) if range.trunc() != range => {
            at.error(format!("is '{text}', which has bits beyond its prefix; expected {}", range.trunc()));
            None
        }
        // Connections are compared in IPv4 then, so it would never hold.
        Some(IpNet::V6(range)) if range.addr().to_ipv4_mapped().is_some() => {
            at.error(format!("is '{text}', IPv4 written as IPv6; expected it in the form of 10.0.0.0/8"));
            None
        }
        Some(range) => Some(range),
        None => {
            at.error(format!("is '{text}'; expected a range such as 10.0.0.0/8, or an address"));
            None
        }
    }
}
