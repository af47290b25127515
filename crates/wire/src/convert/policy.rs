//! `istio.security.Authorization` (`proto/istio/security.proto`).

use ipnet::IpNet;
use weft_model::authz::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, Scope, ServiceAccountMatch, StringMatch};

use super::error::DecodeError;
use super::field;
use crate::proto::istio::security as wire;

/// A policy as a message.
#[must_use]
pub fn policy_to_wire(policy: &Policy) -> wire::Authorization {
    let scope = match policy.scope {
        Scope::Global => wire::Scope::Global,
        Scope::Namespace => wire::Scope::Namespace,
        Scope::Selected => wire::Scope::WorkloadSelector,
    };
    let action = match policy.action {
        Action::Allow => wire::Action::Allow,
        Action::Deny => wire::Action::Deny,
    };
    let rule = |rule: &Rule| wire::Rules { matches: rule.matches.iter().map(match_to_wire).collect() };
    let group = |group: &Group| wire::Group { rules: group.rules.iter().map(rule).collect() };
    wire::Authorization {
        name: policy.key.name.to_string(),
        namespace: policy.key.namespace.to_string(),
        scope: scope.into(),
        action: action.into(),
        groups: policy.groups.iter().map(group).collect(),
        dry_run: policy.mode == Mode::Shadow,
        extensions: Vec::new(),
    }
}

/// The policy that a message means.
///
/// A match with a condition that we do not know (an extension) fails closed: in an Allow it never holds, in a Deny the
/// unknown condition is taken to hold.
///
/// # Errors
/// Names the field that cannot be read.
pub fn policy_from_wire(message: wire::Authorization) -> Result<Policy, DecodeError> {
    field::key_part("name", &message.name)?;
    if message.namespace.contains('/') {
        return Err(DecodeError::Text { field: "namespace", problem: format!("'{}' has a '/'", message.namespace) });
    }
    let scope = match field::known("scope", message.scope)? {
        wire::Scope::Global => Scope::Global,
        wire::Scope::Namespace => Scope::Namespace,
        wire::Scope::WorkloadSelector => Scope::Selected,
    };
    let action = match field::known("action", message.action)? {
        wire::Action::Allow => Action::Allow,
        wire::Action::Deny => Action::Deny,
    };
    let rule = |rule: wire::Rules| {
        let matches = rule.matches.into_iter().map(|one| match_from_wire(action, one));
        Ok(Rule { matches: matches.collect::<Result<_, _>>()? })
    };
    let group = |group: wire::Group| {
        let rules: Result<_, DecodeError> = group.rules.into_iter().map(rule).collect();
        Ok(Group { rules: rules? })
    };
    let groups: Result<_, DecodeError> = message.groups.into_iter().map(group).collect();
    let mode = if message.dry_run { Mode::Shadow } else { Mode::Enforce };
    Ok(Policy { key: PolicyKey::new(&message.namespace, &message.name), scope, action, mode, groups: groups? })
}

/// What stands for a policy that cannot be read until one that can be comes: an Allow permits nobody (other Allow
/// policies still do), anything else denies everybody. None where nothing is needed: a workload that names a policy
/// which is not there is closed already, and a shadowed one enforces nothing.
#[must_use]
pub fn policy_stand_in(message: &wire::Authorization) -> Option<Policy> {
    let scope = match wire::Scope::try_from(message.scope) {
        Ok(wire::Scope::Global) => Scope::Global,
        Ok(wire::Scope::WorkloadSelector) => return None,
        Ok(wire::Scope::Namespace) | Err(_) => Scope::Namespace,
    };
    let (action, groups) = match wire::Action::try_from(message.action) {
        Ok(wire::Action::Allow) => (Action::Allow, Vec::new()),
        Ok(wire::Action::Deny) | Err(_) => (Action::Deny, vec![Group { rules: vec![Rule::default()] }]),
    };
    let key = PolicyKey::new(&message.namespace, &message.name);
    (!message.dry_run).then_some(Policy { key, scope, action, mode: Mode::Enforce, groups })
}

fn match_to_wire(one: &Match) -> wire::Match {
    let texts = |list: &[StringMatch]| list.iter().map(text_to_wire).collect();
    let ranges = |list: &[IpNet]| list.iter().map(range_to_wire).collect();
    let ports = |list: &[u16]| list.iter().map(|port| u32::from(*port)).collect();
    let accounts = |list: &[ServiceAccountMatch]| list.iter().map(account_to_wire).collect();
    wire::Match {
        namespaces: texts(&one.namespaces),
        not_namespaces: texts(&one.not_namespaces),
        principals: texts(&one.principals),
        not_principals: texts(&one.not_principals),
        source_ips: ranges(&one.source_ips),
        not_source_ips: ranges(&one.not_source_ips),
        destination_ips: ranges(&one.destination_ips),
        not_destination_ips: ranges(&one.not_destination_ips),
        destination_ports: ports(&one.destination_ports),
        not_destination_ports: ports(&one.not_destination_ports),
        service_accounts: accounts(&one.service_accounts),
        not_service_accounts: accounts(&one.not_service_accounts),
        extensions: Vec::new(),
    }
}

fn match_from_wire(action: Action, one: wire::Match) -> Result<Match, DecodeError> {
    let unknown_condition = !one.extensions.is_empty();
    let known = Match {
        namespaces: texts("namespaces", one.namespaces)?,
        not_namespaces: texts("not_namespaces", one.not_namespaces)?,
        principals: texts("principals", one.principals)?,
        not_principals: texts("not_principals", one.not_principals)?,
        service_accounts: one.service_accounts.into_iter().map(account_from_wire).collect(),
        not_service_accounts: one.not_service_accounts.into_iter().map(account_from_wire).collect(),
        source_ips: ranges("source_ips", &one.source_ips)?,
        not_source_ips: ranges("not_source_ips", &one.not_source_ips)?,
        destination_ips: ranges("destination_ips", &one.destination_ips)?,
        not_destination_ips: ranges("not_destination_ips", &one.not_destination_ips)?,
        destination_ports: ports("destination_ports", &one.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &one.not_destination_ports)?,
    };
    Ok(match action {
        Action::Allow if unknown_condition => Match::default(), // an empty match never holds
        // Nothing listens on port 0, so this holds for every connection; an empty match would not.
        Action::Deny if unknown_condition && known.is_empty() => {
            Match { not_destination_ports: vec![0], ..Match::default() }
        }
        _ => known,
    })
}

fn text_to_wire(text: &StringMatch) -> wire::StringMatch {
    use wire::string_match::MatchType;
    wire::StringMatch {
        match_type: Some(match text {
            StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
            StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
            StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
            StringMatch::Presence => MatchType::Presence(()),
        }),
    }
}

fn texts(field: &'static str, list: Vec<wire::StringMatch>) -> Result<Vec<StringMatch>, DecodeError> {
    use wire::string_match::MatchType;
    let text = |text: wire::StringMatch| {
        Ok(match text.match_type.ok_or(DecodeError::Unset { field })? {
            MatchType::Exact(text) => StringMatch::Exact(text.into()),
            MatchType::Prefix(text) => StringMatch::Prefix(text.into()),
            MatchType::Suffix(text) => StringMatch::Suffix(text.into()),
            MatchType::Presence(()) => StringMatch::Presence,
        })
    };
    list.into_iter().map(text).collect()
}

fn range_to_wire(range: &IpNet) -> wire::Address {
    wire::Address { address: field::octets(range.addr()), length: range.prefix_len().into() }
}

fn ranges(field: &'static str, list: &[wire::Address]) -> Result<Vec<IpNet>, DecodeError> {
    list.iter().map(|range| field::prefix(field, &range.address, Some(range.length))).collect()
}

fn ports(field: &'static str, list: &[u32]) -> Result<Vec<u16>, DecodeError> {
    list.iter().map(|port| field::port(field, *port)).collect()
}

fn account_to_wire(account: &ServiceAccountMatch) -> wire::ServiceAccountMatch {
    wire::ServiceAccountMatch { namespace: account.namespace.to_string(), service_account: account.name.to_string() }
}

fn account_from_wire(account: wire::ServiceAccountMatch) -> ServiceAccountMatch {
    ServiceAccountMatch { namespace: account.namespace.into(), name: account.service_account.into() }
}
