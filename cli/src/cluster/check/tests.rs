//! What is a finding, given what was seen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rstest::rstest;
use serde_json::{Value, json};
use weft_kubernetes::rotation::{Mark, Rotation, Step};

use super::finding::{Finding, Level};
use super::seen::{Agent, Asked, Installed, Leader, Node, Plugin, Seen};
use super::{certificates, node, plane, pods};
use crate::cluster::pods::{Membership, Row};
use crate::programs::choose::{Program, Role, programs};

const NOW: i64 = 1_000_000_000;
const HOUR: i64 = 3600;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs())
}

fn program(role: Role, pod: &str, node: &str, ready: bool) -> Program {
    let ready = if ready { "True" } else { "False" };
    let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] });
    programs(role, &[json!({ "metadata": { "name": pod }, "spec": { "nodeName": node }, "status": status })]).remove(0)
}

/// What a program says, of a few fields and many that do not matter.
fn said<T: serde::de::DeserializeOwned>(fields: &[(&str, Value)], mut base: Value) -> T {
    for (name, value) in fields {
        base[name] = value.clone();
    }
    serde_json::from_value(base).unwrap()
}

fn server(fields: &[(&str, Value)]) -> Asked<weft_model::view::ConfigView> {
    let streams = json!([{ "node": "a", "agent": "x", "connected_seconds": 9, "in_sync": true, "types": [] }]);
    let base = json!({
        "program": "weft-xds-server", "version": "1.0.0", "node": "", "settings": {}, "subscribers": streams,
        "signs_until": NOW + 1000 * 24 * HOUR,
    });
    Ok(said(fields, base))
}

fn agent_config(version: &str, plane: &Value) -> Asked<weft_model::view::ConfigView> {
    let mut whole =
        json!({ "address": "server:15012", "connected": true, "types": [{ "name": "Address", "held": 7 }] });
    for (name, value) in plane.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    let base = json!({ "program": "weft-node-agent", "version": version, "node": "a", "settings": {}, "control_plane": whole });
    Ok(said(&[], base))
}

fn certificate(not_after: i64) -> weft_model::view::CertificateRow {
    let base = json!({
        "identity": "spiffe://mesh/ns/shop/sa/web", "state": "valid", "serial": "1", "not_before": not_after - HOUR,
        "not_after": not_after, "next_request": 0, "users": 1,
    });
    said(&[], base)
}

fn known(name: &str, captured: bool, note: Option<&str>) -> weft_model::view::PodRow {
    let base = json!({
        "namespace": "shop", "name": name, "node": "a", "addresses": [], "identity": "", "in_mesh": true, "healthy": true,
        "services": [], "policies": [], "captured_here": captured, "note": note,
    });
    said(&[], base)
}

fn row(name: &str, node: &str, mesh: Membership) -> Row {
    Row { namespace: "shop".to_owned(), name: name.to_owned(), node: node.to_owned(), mesh, why: String::new() }
}

fn agent() -> Agent {
    Agent {
        program: program(Role::Agent, "agent-a", "a", true),
        config: agent_config("1.0.0", &json!({})),
        certificates: Ok(vec![certificate(NOW + HOUR)]),
        pods: Ok(vec![known("web", true, None)]),
        plugin: Plugin::Chained("/etc/cni/net.d/10-a.conflist".to_owned()),
    }
}

fn a_node(agent: Option<Agent>) -> Node {
    Node { name: "a".to_owned(), ready: true, wanted: true, agent, proxy: Some("nftables".to_owned()) }
}

/// A cluster in which all is well.
fn well() -> Seen {
    Seen {
        now: now(),
        version: "1.0.0".to_owned(),
        kubernetes: "v1.34.4".to_owned(),
        installed: Installed { count: 16, ..Installed::default() },
        forbidden: Vec::new(),
        no_ports: None,
        servers: vec![(program(Role::Server, "server-1", "a", true), server(&[]))],
        leader: Leader::Holds("server-1_uid".to_owned(), 3),
        rotation: Ok(Some(Rotation::default())),
        nodes: vec![a_node(Some(agent()))],
        pods: vec![row("web", "a", Membership::Captured)],
    }
}

fn all(seen: &Seen) -> Vec<Finding> {
    let nodes = seen.nodes.iter().flat_map(|one| node::findings(one, seen));
    let plane = plane::findings(seen).into_iter().chain(certificates::findings(seen));
    plane.chain(nodes).chain(pods::findings(seen)).collect()
}

#[test]
fn where_all_is_well_nothing_is_to_be_done() {
    let findings = all(&well());
    assert!(findings.iter().all(|finding| finding.level == Level::Ok && finding.fix.is_none()), "{findings:#?}");
    let words = findings.iter().map(|finding| &*finding.finding).collect::<Vec<_>>().join("\n");
    for part in [
        "nftables (1)",
        "all 16 objects",
        "server-1 leads",
        "agent-a is ready, 1.0.0",
        "in sync",
        "10-a.conflist",
        "1 of 1 selected",
    ] {
        assert!(words.contains(part), "no {part} in {words}");
    }
}

fn in_agent(change: impl FnOnce(&mut Agent)) -> Seen {
    let mut agent = agent();
    change(&mut agent);
    Seen { nodes: vec![a_node(Some(agent))], ..well() }
}

fn in_server(fields: &[(&str, Value)]) -> Seen {
    Seen { servers: vec![(program(Role::Server, "server-1", "a", true), server(fields))], ..well() }
}

fn in_rotation(rotation: Rotation) -> Seen {
    Seen { rotation: Ok(Some(rotation)), ..well() }
}

fn step(until: i64) -> Rotation {
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    Rotation {
        mark: Some(Mark { step: Step::Trust, counted: Some((at(NOW - HOUR), at(until))) }),
        ..Rotation::default()
    }
}

/// One thing is wrong: at which level, where, in which words, and what to do. Nothing else is said to be wrong.
#[rstest]
#[case::absent(
    Seen { installed: Installed { absent: vec!["Role a".into()], ..Installed::default() }, ..well() },
    Level::Error, "control plane", "Role a is not there", "weft install"
)]
#[case::unfinished(
    Seen { installed: Installed { unfinished: vec![("DaemonSet b".into(), "1 of 2 ready".into())], ..Installed::default() }, ..well() },
    Level::Error, "control plane", "DaemonSet b: 1 of 2 ready", "get events"
)]
#[case::no_right_to_ports(
    Seen {
        no_ports: Some("forbidden".into()),
        servers: vec![(program(Role::Server, "server-1", "a", true), Err("forbidden".into()))],
        ..in_agent(|agent| {
            agent.config = Err("forbidden".into());
            agent.certificates = Err("forbidden".into());
            agent.pods = Err("forbidden".into());
        })
    },
    Level::Warning, "your rights", "were not asked: forbidden", "pods/portforward"
)]
#[case::no_leader(Seen { leader: Leader::Nobody, ..well() }, Level::Warning, "control plane", "no replica leads", "get lease")]
#[case::leader_lost(
    Seen { leader: Leader::Holds("server-1_uid".into(), 90), ..well() }, Level::Warning, "control plane", "not said so for 90 s", "get lease"
)]
#[case::leader_gone(
    Seen { leader: Leader::Holds("server-0_uid".into(), 3), ..well() }, Level::Warning, "control plane", "none of the replicas", "get lease"
)]
#[case::this_program_is_newer(Seen { version: "1.1.0".into(), ..well() }, Level::Warning, "control plane", "this weft is 1.1.0", "weft upgrade")]
#[case::object(
    in_server(&[("findings", json!([{ "origin": "", "object": "Service shop/web", "field": "spec.x", "message": "odd" }]))]),
    Level::Warning, "Service shop/web", "spec.x: odd", "mend the object"
)]
#[case::root_ends(in_server(&[("signs_until", json!(NOW + 10 * 24 * HOUR))]), Level::Warning, "root", "ends in 10days", "weft certs rotate")]
#[case::root_is_over(in_server(&[("signs_until", json!(NOW - 1))]), Level::Error, "root", "is over", "weft certs rotate")]
#[case::rotation_overdue(in_rotation(step(NOW - 600)), Level::Warning, "root", "since 10m already", "rotate --status")]
#[case::no_agent(
    Seen { nodes: vec![a_node(None)], ..well() }, Level::Error, "node a", "runs no agent: pods of the mesh do not start there; 1 captured", "spec.nodeName=a"
)]
#[case::agent_not_ready(
    in_agent(|agent| agent.program = program(Role::Agent, "agent-a", "a", false)), Level::Error, "node a", "agent-a is not ready", "describe pod agent-a"
)]
#[case::agent_is_silent(
    in_agent(|agent| agent.config = Err("no answer from a: refused\n  next: look".into())),
    Level::Warning, "node a", "could not be asked: no answer from a: refused", "logs agent-a"
)]
#[case::agent_is_older(
    in_agent(|agent| agent.config = agent_config("0.9.0", &json!({}))), Level::Warning, "node a", "0.9.0, the control plane 1.0.0", "weft upgrade"
)]
#[case::not_connected(
    in_agent(|agent| agent.config = agent_config("1.0.0", &json!({ "connected": false, "last_error": "refused" }))),
    Level::Error, "node a", "not connected to the control plane at server:15012: refused", "control plane above"
)]
#[case::rejected(
    in_agent(|agent| agent.config = agent_config("1.0.0", &json!({
        "types": [{ "name": "Authorization", "held": 1, "rejected": [{ "name": "shop/p", "error": "odd" }] }]
    }))),
    Level::Error, "node a", "rejected shop/p: odd", "mend the object"
)]
#[case::not_acknowledged(
    in_server(&[("subscribers", json!([{ "node": "a", "agent": "x", "connected_seconds": 9, "in_sync": false, "types": [] }]))]),
    Level::Warning, "node a", "has not acknowledged", "look again"
)]
#[case::plugin_is_missing(
    in_agent(|agent| agent.plugin = Plugin::Missing("no CNI configuration yet".into())), Level::Error, "node a", "no CNI configuration yet", "-c cni"
)]
#[case::certificate_is_over(
    in_agent(|agent| agent.certificates = Ok(vec![certificate(NOW - 1)])), Level::Error, "node a", "mesh/ns/shop/sa/web is over", "why no-certificate"
)]
#[case::certificate_was_not_renewed(
    in_agent(|agent| agent.certificates = Ok(vec![certificate(NOW + HOUR), certificate(NOW + 600)])),
    Level::Warning, "node a", "ends in 10m, and was not renewed", "weft-xds-server"
)]
#[case::the_agent_does_not_serve_a_pod(
    in_agent(|agent| agent.pods = Ok(vec![known("web", false, None)])), Level::Warning, "pod shop/web", "does not serve it", "look again"
)]
#[case::a_pod_that_starts(
    Seen { pods: vec![row("new", "a", Membership::Waiting), row("web", "a", Membership::Captured)], ..well() },
    Level::Warning, "pod shop/new", "node a: selected, and not known to its agent yet", "describe pod new"
)]
fn one_thing_is_wrong(
    #[case] seen: Seen,
    #[case] level: Level,
    #[case] place: &str,
    #[case] words: &str,
    #[case] fix: &str,
) {
    let findings = all(&seen);
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.level > Level::Note).collect();
    let [one] = &*wrong else { panic!("{wrong:#?}") };
    assert_eq!((one.level, &*one.place), (level, place));
    assert!(one.finding.contains(words) && one.fix.as_ref().is_some_and(|said| said.contains(fix)), "{one:#?}");
}

#[rstest]
#[case::closed(Some("selected but not captured (taken): closed"), "node a: selected but not captured (taken): closed")]
#[case::no_reason(None, "its agent does not say why")]
fn a_selected_pod_that_is_not_captured_is_named_with_its_reason(#[case] note: Option<&str>, #[case] words: &str) {
    let mut seen = in_agent(|agent| agent.pods = Ok(vec![known("web", false, note)]));
    seen.pods = vec![row("web", "a", Membership::Waiting)];
    let findings = pods::findings(&seen);
    assert_eq!((findings.len(), findings[0].level), (1, Level::Error));
    assert!(findings[0].finding.contains(words), "{findings:#?}");
    assert!(findings[0].fix.as_ref().is_some_and(|fix| fix.contains("-n shop describe pod web")), "{findings:#?}");
    assert!(node::findings(&seen.nodes[0], &seen).iter().any(|finding| finding.finding.starts_with("0 of 1 selected")));
}

#[test]
fn what_needs_nothing_to_be_done_is_a_note() {
    let leaving = Seen { pods: vec![row("web", "a", Membership::Leaving)], ..well() };
    let unwanted = Seen { nodes: vec![Node { wanted: false, ..a_node(None) }], pods: Vec::new(), ..well() };
    let forbidden = Seen { forbidden: vec!["nodes".into()], leader: Leader::Unknown, ..well() };
    let rotating = in_rotation(step(NOW + HOUR));
    let unknown = in_agent(|agent| agent.plugin = Plugin::Unknown("no right".into()));
    let server_unasked = Seen {
        servers: vec![(program(Role::Server, "server-1", "a", true), server(&[("subscribers", json!([]))]))],
        ..well()
    };
    for seen in [leaving, unwanted, forbidden, rotating, unknown, server_unasked] {
        let findings = all(&seen);
        let worst = findings.iter().map(|finding| finding.level).max();
        assert_eq!(worst, Some(Level::Note), "{findings:#?}");
    }
}

#[test]
fn a_cluster_without_weft_has_one_error() {
    let absent =
        ["Namespace weft-system", "Deployment weft-xds-server", "DaemonSet weft-node-agent"].map(str::to_owned);
    let installed = Installed { count: 16, absent: absent.to_vec(), ..Installed::default() };
    let seen = Seen { installed, servers: Vec::new(), nodes: vec![a_node(None)], pods: Vec::new(), ..well() };
    assert!(plane::is_installed(&well()) && !plane::is_installed(&seen));
    let findings = plane::not_installed(&seen);
    let errors: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Error).collect();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].finding.contains("3 of its 16 objects")
            && errors[0].fix.as_deref().is_some_and(|fix| fix.contains("weft install"))
    );
}
