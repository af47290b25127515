//! The policy table: what each field, combination and absence means.

use rstest::rstest;

use super::{
    Action, Connection, Ground, Group, Match, Mode, Permit, Policy, PolicyKey, Rule, Scope, ServiceAccountMatch,
    StringMatch,
};
use crate::authz::evaluate;
use crate::change::{Change, Resource};
use crate::mesh::Mesh;
use crate::reason::Reason;
use crate::spiffe::SpiffeId;
use crate::workload::Workload;

fn web(port: u16) -> Connection {
    Connection {
        identity: Some(SpiffeId::new("cluster.local", "shop", "web").unwrap()),
        source: "10.244.0.2".parse().unwrap(),
        destination: format!("10.244.1.3:{port}").parse().unwrap(),
    }
}

fn plaintext() -> Connection {
    Connection { identity: None, ..web(80) }
}

fn policy(name: &str, scope: Scope, action: Action, matches: Vec<Match>) -> Policy {
    let groups = vec![Group { rules: vec![Rule { matches }] }];
    Policy { key: PolicyKey::new("shop", name), scope, action, mode: Mode::Enforce, groups }
}

fn never(name: &str, action: Action) -> Policy {
    Policy { groups: Vec::new(), ..policy(name, Scope::Namespace, action, Vec::new()) }
}

fn cart() -> Workload {
    Workload::named("Kubernetes", "shop", "cart")
}

fn outcome(policies: Vec<Policy>, connection: &Connection) -> Result<Option<String>, (Reason, Option<String>)> {
    let changes = policies.into_iter().map(|policy| Change::Upsert(Resource::Policy(policy))).collect();
    let mesh = Mesh::default().apply(changes);
    let verdict = evaluate(&mesh, &cart(), connection);
    let name = |key: &PolicyKey| key.name.to_string();
    match verdict.enforced {
        Ok(permit) => Ok(permit.policy().map(name)),
        Err(denial) => Err((denial.reason, denial.policy.as_ref().map(name))),
    }
}

fn text(value: &str) -> Vec<StringMatch> {
    vec![StringMatch::parse(value)]
}

#[rstest]
#[case::namespace(Match { namespaces: text("shop"), ..Match::default() }, true)]
#[case::other_namespace(Match { namespaces: text("ops"), ..Match::default() }, false)]
#[case::not_namespace(Match { not_namespaces: text("ops"), ..Match::default() }, true)]
#[case::not_own_namespace(Match { not_namespaces: text("sh*"), ..Match::default() }, false)]
#[case::principal(Match { principals: text("cluster.local/ns/shop/sa/web"), ..Match::default() }, true)]
#[case::principal_suffix(Match { principals: text("*/sa/web"), ..Match::default() }, true)]
#[case::principal_prefix(Match { principals: text("cluster.local/*"), ..Match::default() }, true)]
#[case::principal_with_scheme(Match { principals: text("spiffe://cluster.local/*"), ..Match::default() }, false)]
#[case::any_principal(Match { principals: text("*"), ..Match::default() }, true)]
#[case::no_principal(Match { not_principals: text("*"), ..Match::default() }, false)]
#[case::account(Match { service_accounts: vec![account("shop", "web")], ..Match::default() }, true)]
#[case::other_account(Match { service_accounts: vec![account("ops", "web")], ..Match::default() }, false)]
#[case::not_account(Match { not_service_accounts: vec![account("shop", "web")], ..Match::default() }, false)]
#[case::source(Match { source_ips: vec!["10.244.0.0/24".parse().unwrap()], ..Match::default() }, true)]
#[case::other_source(Match { source_ips: vec!["10.244.9.0/24".parse().unwrap()], ..Match::default() }, false)]
#[case::not_source(Match { not_source_ips: vec!["10.244.0.2/32".parse().unwrap()], ..Match::default() }, false)]
#[case::destination(Match { destination_ips: vec!["10.244.1.3/32".parse().unwrap()], ..Match::default() }, true)]
#[case::not_destination(Match { not_destination_ips: vec!["10.0.0.0/8".parse().unwrap()], ..Match::default() }, false)]
#[case::port(Match { destination_ports: vec![80, 443], ..Match::default() }, true)]
#[case::other_port(Match { destination_ports: vec![81], ..Match::default() }, false)]
#[case::not_port(Match { not_destination_ports: vec![80], ..Match::default() }, false)]
#[case::two_fields(Match { namespaces: text("shop"), destination_ports: vec![81], ..Match::default() }, false)]
#[case::empty_never(Match::default(), false)]
fn one_match(#[case] found: Match, #[case] holds: bool) {
    let allow = policy("p", Scope::Namespace, Action::Allow, vec![found.clone()]);
    assert_eq!(outcome(vec![allow], &web(80)).is_ok(), holds);
    let deny = policy("p", Scope::Namespace, Action::Deny, vec![found]);
    assert_eq!(outcome(vec![deny], &web(80)).is_err(), holds);
}

fn account(namespace: &str, name: &str) -> ServiceAccountMatch {
    ServiceAccountMatch { namespace: namespace.into(), name: name.into() }
}

#[test]
fn plaintext_has_no_identity_to_match() {
    for found in [
        Match { principals: text("*"), ..Match::default() },
        Match { namespaces: text("*"), ..Match::default() },
        Match { service_accounts: vec![account("shop", "web")], ..Match::default() },
    ] {
        let allow = policy("p", Scope::Namespace, Action::Allow, vec![found]);
        assert!(outcome(vec![allow], &plaintext()).is_err());
    }
}

#[test]
fn strict_mode_is_a_deny_of_whoever_has_no_identity() {
    let absent = Match { not_principals: vec![StringMatch::Presence], ..Match::default() };
    let strict = || vec![policy("strict", Scope::Global, Action::Deny, vec![absent.clone()])];
    assert_eq!(outcome(strict(), &plaintext()), Err((Reason::MtlsRequired, Some("strict".into()))));
    assert_eq!(outcome(strict(), &web(80)), Ok(None));
}

#[test]
fn order_and_absence() {
    let all = Match { not_destination_ports: vec![1], ..Match::default() };
    let allow = |name| policy(name, Scope::Namespace, Action::Allow, vec![all.clone()]);
    let deny = |name| policy(name, Scope::Namespace, Action::Deny, vec![all.clone()]);
    assert_eq!(outcome(vec![], &web(80)), Ok(None), "no policy: permitted");
    assert_eq!(outcome(vec![allow("a")], &web(80)), Ok(Some("a".into())));
    assert_eq!(outcome(vec![allow("a"), deny("d")], &web(80)), Err((Reason::PolicyDenied, Some("d".into()))));
    assert_eq!(
        outcome(vec![never("default-deny", Action::Allow)], &web(80)),
        Err((Reason::PolicyNotAllowed, Some("default-deny".into()))),
        "an Allow without rules is default-deny"
    );
    assert_eq!(outcome(vec![never("n", Action::Deny)], &web(80)), Ok(None));
    let other = Policy { key: PolicyKey::new("ops", "a"), ..never("x", Action::Allow) };
    assert_eq!(outcome(vec![other], &web(80)), Ok(None), "another namespace's policy");
}

#[test]
fn a_rule_without_matches_holds_and_groups_are_alternatives() {
    let mut wanted = policy("p", Scope::Namespace, Action::Allow, vec![]);
    assert!(outcome(vec![wanted.clone()], &web(80)).is_ok());
    let port = |port| Rule { matches: vec![Match { destination_ports: vec![port], ..Match::default() }] };
    wanted.groups = vec![Group { rules: vec![port(80), port(81)] }];
    assert!(outcome(vec![wanted.clone()], &web(80)).is_err(), "rules of a group are and'ed");
    wanted.groups = vec![Group { rules: vec![port(81)] }, Group { rules: vec![port(80)] }];
    assert!(outcome(vec![wanted], &web(80)).is_ok(), "groups are or'ed");
}

#[test]
fn an_unknown_policy_fails_closed() {
    let mut destination = cart();
    destination.policies = vec![PolicyKey::new("shop", "missing")];
    let verdict = evaluate(&Mesh::default(), &destination, &web(80));
    assert_eq!(verdict.enforced.unwrap_err().reason, Reason::PolicyUnknown);
}

#[test]
fn shadow_counts_and_does_not_enforce() {
    let all = Match { not_destination_ports: vec![1], ..Match::default() };
    let mut deny = policy("d", Scope::Namespace, Action::Deny, vec![all]);
    deny.mode = Mode::Shadow;
    let mesh = Mesh::default().apply(vec![Change::Upsert(Resource::Policy(deny))]);
    let verdict = evaluate(&mesh, &cart(), &web(80));
    assert!(verdict.enforced.is_ok());
    assert_eq!(verdict.shadow.unwrap().policy, PolicyKey::new("shop", "d"));
    let mut allow = never("a", Action::Allow);
    allow.mode = Mode::Shadow;
    let mesh = Mesh::default().apply(vec![Change::Upsert(Resource::Policy(allow))]);
    let verdict = evaluate(&mesh, &cart(), &web(80));
    assert!(verdict.enforced.is_ok(), "a shadowed Allow closes nothing");
    assert_eq!(verdict.shadow.unwrap().reason, Reason::PolicyNotAllowed);
}

#[test]
fn a_probe_overrules_what_policies_say_and_nothing_else() {
    for refused in [Reason::MtlsRequired, Reason::PolicyDenied, Reason::PolicyNotAllowed] {
        let permit = Permit::of_kubelet_probe(refused).unwrap();
        assert_eq!((permit.ground(), permit.policy()), (Ground::KubeletProbe, None));
    }
    for refused in [Reason::PolicyUnknown, Reason::ReservedPort, Reason::UnknownWorkload, Reason::PolicyChanged] {
        assert_eq!(Permit::of_kubelet_probe(refused), None);
    }
}
