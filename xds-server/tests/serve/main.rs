//! The real client of `weft-wire` against the real server, over loopback TCP without TLS (which `weft-identity` tests).

#![expect(clippy::unwrap_used, reason = "a test may die of an assumption")]

mod bench;
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::net::TcpListener;
use tonic::{Code, Request};
use weft_identity::clock;
use weft_identity::control::{
    ControlConnector, ControlRoots, ControlSecurity, Incoming, ServingSource, system_resolver,
};
use weft_identity::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};
use weft_model::{Change, Mesh, Reason, Resource, Uid, Workload};
use weft_runtime::{drain, shared};
use weft_wire::connect::Connector;
use weft_wire::convert::ResourceType;
use weft_wire::delta::{Limits, StreamStatus};
use weft_wire::proto::discovery::DeltaDiscoveryRequest;
use weft_wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_wire::report::{Report, ReportError, Reported, Reporter};
use weft_xds_server::catalog::Catalog;
use weft_xds_server::serve::{Ads, AdsSettings, CapturedStore, NodeTokens, Nodes, Reports, ServeMetrics, serve};

use bench::{DEADLINE, any_port, client, client_by, credentials, service, start, until, workload};

#[tokio::test]
async fn subscribes_is_updated_and_told_of_removals_on_two_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let resources = [workload("a", "node-1"), service("s")];
    let mut server = start(folder.path(), any_port(), Some(&resources), Limits::default()).await;
    let mut first = client(folder.path(), server.address, "node-1", "one");
    let mut second = client(folder.path(), server.address, "node-2", "two");
    for client in [&mut first, &mut second] {
        client.status(StreamStatus::is_ready).await;
        client.names(&["c//Pod/ns/a", "ns/s"]).await;
    }
    server.publish(&[workload("a", "node-2"), workload("b", "node-1")]);
    for client in [&mut first, &mut second] {
        client.names(&["c//Pod/ns/a", "c//Pod/ns/b"]).await;
        let mesh = client.mesh.lock().unwrap();
        assert_eq!(&*mesh.workload(&Uid::of_pod("c", "ns", "a")).unwrap().node, "node-2");
    }
    let held = |nodes: &Nodes, node: &str| {
        let status = nodes.all().get(node).cloned().unwrap_or_default();
        status.streams.first().and_then(|stream| stream.types.get(&ResourceType::Address).map(|one| one.held))
    };
    until(|| held(&server.nodes, "node-1") == Some(2) && held(&server.nodes, "node-2") == Some(2)).await;
    assert_eq!((server.nodes.streams(), server.metric("weft_xds_streams ")), (2, 2));
    drop(second);
    until(|| server.nodes.streams() == 1).await;
    assert!(server.nodes.all()["node-2"].last_end.is_some());
}

#[tokio::test]
async fn a_killed_server_comes_back_and_sends_only_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let resources = [workload("same", "n"), workload("changed", "n"), workload("gone", "n")];
    let server = start(folder.path(), any_port(), Some(&resources), Limits::default()).await;
    let mut client = client(folder.path(), server.address, "node-1", "one");
    client.status(StreamStatus::is_ready).await;
    let address = server.address;
    drop(server);
    client.status(|status| !status.connected).await;
    client.names(&["c//Pod/ns/same", "c//Pod/ns/changed", "c//Pod/ns/gone"]).await;
    client.batches.lock().unwrap().clear();
    let resources = [workload("same", "n"), workload("changed", "other"), workload("new", "n")];
    let server = start(folder.path(), address, Some(&resources), Limits::default()).await;
    client.status(|status| status.connected).await;
    client.names(&["c//Pod/ns/same", "c//Pod/ns/changed", "c//Pod/ns/new"]).await;
    assert_eq!(client.changes().len(), 3, "two new, one removed: {:?}", client.changes());
    assert!(client.batches.lock().unwrap()[0].first);
    assert_eq!(server.metric("weft_xds_resources_total"), 3);
}

#[tokio::test]
async fn nothing_is_said_before_the_source_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let resources = [workload("a", "n")];
    let server = start(folder.path(), any_port(), Some(&resources), Limits::default()).await;
    let mut client = client(folder.path(), server.address, "node-1", "one");
    client.names(&["c//Pod/ns/a"]).await;
    client.status(StreamStatus::is_ready).await;
    let address = server.address;
    drop(server);
    let mut server = start(folder.path(), address, None, Limits::default()).await;
    until(|| server.nodes.streams() == 1).await;
    assert_eq!(server.metric("weft_xds_responses_total"), 0);
    client.names(&["c//Pod/ns/a"]).await;
    server.publish(&[]);
    client.names(&[]).await;
}

/// A workload that names a policy which its node does not have is refused everything, so there must be no such moment.
#[tokio::test]
async fn a_node_never_holds_a_workload_without_its_policies() {
    let policy = |name: &str| {
        let key = weft_model::PolicyKey::new("shop", name);
        let (scope, action) = (weft_model::authz::Scope::Selected, weft_model::authz::Action::Allow);
        Resource::Policy(weft_model::Policy { key, scope, action, mode: Default::default(), groups: Vec::new() })
    };
    let cart = |policies: &[&str]| {
        let mut workload = Workload::named("c", "shop", "cart");
        workload.policies = policies.iter().map(|name| weft_model::PolicyKey::new("shop", name)).collect();
        Resource::Workload(workload)
    };
    let folder = tempfile::tempdir().unwrap();
    let first = [cart(&["a"]), policy("a")];
    let mut server = start(folder.path(), any_port(), Some(&first), Limits::default()).await;
    let mut client = client(folder.path(), server.address, "node-1", "one");
    client.status(StreamStatus::is_ready).await;
    for round in 0..20 {
        let (old, new) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        server.publish(&[cart(&[new]), policy(new)]);
        let removed = |change: &Change| matches!(change, Change::Remove(weft_model::ResourceKey::Policy(key)) if *key.name == *old);
        until(|| client.changes().iter().filter(|change| removed(change)).count() > round / 2).await;
    }
    let mut mesh = Mesh::default();
    for change in client.changes() {
        mesh = mesh.apply(vec![change]);
        for workload in mesh.workloads() {
            assert!(workload.policies.iter().all(|key| mesh.policy(key).is_some()), "{workload:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_resource_is_visible_and_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    // No key of a service has a second '/': the client refuses it.
    let resources = [workload("good", "n"), service("bad/host")];
    let mut server = start(folder.path(), any_port(), Some(&resources), Limits::default()).await;
    let mut client = client(folder.path(), server.address, "node-1", "one");
    client.names(&["c//Pod/ns/good"]).await;
    let refused = |nodes: &Nodes| {
        let node = nodes.all().get("node-1").cloned().unwrap_or_default();
        let types = node.streams.into_iter().flat_map(|stream| stream.types);
        types.flat_map(|(_, status)| status.refused).collect::<Vec<_>>()
    };
    until(|| refused(&server.nodes).len() == 1).await;
    let one = refused(&server.nodes).remove(0);
    assert_eq!((&*one.name, one.reason.as_str()), ("ns/bad/host", "hostname: 'bad/host' must not contain '/'"));
    assert_eq!(server.metric("weft_xds_nacks_total"), 1);
    let status = client.status(|status| status.types[&ResourceType::Address].nacks == 1).await;
    assert_eq!(status.types[&ResourceType::Address].rejected[0].name, "ns/bad/host");
    server.publish(&[workload("good", "n"), service("good")]);
    client.names(&["c//Pod/ns/good", "ns/good"]).await;
    until(|| refused(&server.nodes).is_empty()).await;
}

#[tokio::test]
async fn strangers_and_wrong_nodes_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[]), Limits::default()).await;
    for (node, token, reason) in [("node-1", "wrong", Reason::Unauthenticated), ("node-1", "two", Reason::WrongNode)] {
        let mut client = client(folder.path(), server.address, node, token);
        let status = client.status(|status| status.last_error.is_some()).await;
        let error = status.last_error.clone().unwrap();
        assert!(error.contains(reason.code()) && !status.connected, "{error}");
        assert!(client.batches.lock().unwrap().is_empty());
    }
    let channel = Connector::tcp(server.address).channel().await.unwrap();
    let none = tokio_stream::iter([DeltaDiscoveryRequest::default()]);
    let refused = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(none).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(server.nodes.streams(), 0);
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_the_next_stream_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[]), Limits::default()).await;
    std::fs::write(folder.path().join("tokens"), "node-1 another\n").unwrap();
    let mut client = client(folder.path(), server.address, "node-1", "one");
    client.status(|status| status.last_error.is_some()).await;
    std::fs::write(folder.path().join("token-one"), "another").unwrap();
    client.status(StreamStatus::is_ready).await;
}

#[tokio::test]
async fn a_large_mesh_comes_in_pieces_and_is_ready_only_when_whole() {
    let folder = tempfile::tempdir().unwrap();
    let resources: Vec<Resource> = (0..250).map(|number| workload(&format!("w{number}"), "n")).collect();
    let limits = Limits { resources: 20, bytes: 1 << 20 };
    let server = start(folder.path(), any_port(), Some(&resources), limits).await;
    let mut client = client(folder.path(), server.address, "node-1", "one");
    let status = client
        .status(|status| {
            let addresses = &status.types[&ResourceType::Address];
            assert_eq!(addresses.complete, addresses.held == 250);
            status.is_ready()
        })
        .await;
    assert_eq!(status.types[&ResourceType::Address].responses, 13);
    assert_eq!(server.metric("weft_xds_resources_total"), 250);
}

#[tokio::test]
async fn two_agents_of_one_node_overlap_and_a_drain_ends_both() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), any_port(), Some(&[workload("a", "n")]), Limits::default()).await;
    let mut old = client(folder.path(), server.address, "node-1", "one");
    let mut new = client(folder.path(), server.address, "node-1", "one");
    old.status(StreamStatus::is_ready).await;
    new.status(StreamStatus::is_ready).await;
    assert_eq!(server.nodes.all()["node-1"].streams.len(), 2);
    let outcome = tokio::time::timeout(DEADLINE, server.trigger.take().unwrap().drain(DEADLINE)).await.unwrap();
    assert!(matches!(outcome, drain::Outcome::Drained { .. }), "{outcome:?}");
    server.ended.take().unwrap().await.unwrap();
    for client in [&mut old, &mut new] {
        let status = client.status(|status| !status.connected).await;
        assert!(status.last_error.is_some());
        client.names(&["c//Pod/ns/a"]).await;
    }
    let end = server.nodes.all()["node-1"].last_end.clone().unwrap().1;
    assert!(end.contains("draining"), "{end}");
}

#[tokio::test]
async fn of_a_type_that_there_is_not_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[]), Limits::default()).await;
    let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("node-1".to_owned())) };
    let metadata = prost_types::Struct { fields: BTreeMap::from([("NODE_NAME".to_owned(), text)]) };
    let node = weft_wire::proto::discovery::Node { metadata: Some(metadata), ..Default::default() };
    let type_url = "type.googleapis.com/foreign.Type".to_owned();
    let request = DeltaDiscoveryRequest { node: Some(node), type_url: type_url.clone(), ..Default::default() };
    let mut request = Request::new(tokio_stream::StreamExt::chain(
        tokio_stream::once(request),
        tokio_stream::pending::<DeltaDiscoveryRequest>(),
    ));
    *request.metadata_mut() = credentials(folder.path(), "one").metadata().unwrap();
    let channel = Connector::tcp(server.address).channel().await.unwrap();
    let answer = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(request).await.unwrap();
    let response = tokio::time::timeout(DEADLINE, answer.into_inner().message()).await.unwrap().unwrap().unwrap();
    assert_eq!((response.type_url, response.resources.len()), (type_url, 0));
}

#[tokio::test]
async fn reports_are_kept_over_a_kill_and_only_for_the_own_node() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[]), Limits::default()).await;
    let reporter = |token| Reporter::new(Connector::tcp(server.address), credentials(folder.path(), token));
    let known = Uid::of_pod("c", "ns", "known");
    let captured = vec![known.clone(), Uid::of_pod("c", "ns", "early")];
    let report = Report { node: "node-1".to_owned(), captured, agent_version: "1".to_owned() };
    let Reported::Accepted { refused } = reporter("one").report(&report).await.unwrap() else { panic!("supported") };
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.starts_with("unknown-workload"), "{refused:?}");
    for (token, reason) in [("two", Reason::WrongNode), ("three", Reason::Unauthenticated)] {
        match reporter(token).report(&report).await {
            Err(ReportError::Failed { reason: given, .. }) => assert_eq!(given, Some(reason)),
            other => panic!("{other:?}"),
        }
    }
    drop(server);
    let (_, captured) = CapturedStore::open(folder.path()).unwrap();
    let here = captured.load().effective(|uid| (*uid == known).then_some("node-1"));
    assert_eq!(here, BTreeSet::from([known.clone()]));
    assert!(captured.load().effective(|_| Some("node-2")).is_empty());
}

/// What the program wires: TLS by `weft-identity` on both ends, and a service more.
#[tokio::test]
async fn over_tls_as_the_program_wires_it() {
    let now = SystemTime::now();
    let root = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now).unwrap();
    let signer = Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, signer.roots().to_pem()).unwrap();
    std::fs::write(folder.path().join("tokens"), "node-1 one\n").unwrap();
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let source = ServingSource::new(shared::channel(signer).1, &[address.ip().to_string()], clock::system()).unwrap();
    let (_trigger, watch) = drain::channel();
    let (_writer, catalog) = shared::channel(Some(Catalog::new().update(&[workload("a", "n")]).0));
    let (store, _) = CapturedStore::open(folder.path()).unwrap();
    let (metrics, limits) = (ServeMetrics::default(), Limits::default());
    let reports = Reports::new(Arc::new(Mutex::new(store)), |_| None, metrics.clone());
    let ads = Ads::new(AdsSettings {
        catalog,
        nodes: Nodes::new(),
        metrics,
        drain: watch.clone(),
        limits,
        reports_due: None,
    });
    let authenticate = Arc::new(NodeTokens::open(&folder.path().join("tokens")).unwrap());
    let incoming = Incoming::tls(listener, source);
    tokio::spawn(serve(incoming, authenticate, (ads, reports), |routes| routes, watch));

    let security = ControlSecurity::Tls { roots: ControlRoots::File(roots), server_name: None };
    let origin = format!("https://{address}").parse().unwrap();
    let connector = ControlConnector::new(security, system_resolver()).into_wire(origin);
    let mut client = client_by(connector, folder.path(), "node-1", "one");
    client.status(StreamStatus::is_ready).await;
    client.names(&["c//Pod/ns/a"]).await;
}
