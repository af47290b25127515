//! Agents that harm, and states that are new: what a server holds for one node is bounded, and nobody is told that a captured
//! pod is plain because a file is missing.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use weft_model::authz::{Action, Policy, PolicyKey, Scope};
use weft_model::{Change, Mesh, Reason, Resource, ResourceKey, Uid, Workload};
use weft_wire::connect::Connector;
use weft_wire::convert::ResourceType;
use weft_wire::delta::{Limits, SessionStatus, StreamStatus};
use weft_wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Refusal};
use weft_wire::report::{Report, ReportError, Reporter};

use crate::bench::{DEADLINE, Server, any_port, client, credentials, start, start_with, until, workload};

/// An agent that says what the test wants.
struct Raw {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Pin<Box<Streaming<DeltaDiscoveryResponse>>>,
}

impl Raw {
    async fn open(folder: &std::path::Path, server: &Server, first: DeltaDiscoveryRequest) -> Self {
        let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("node-1".to_owned())) };
        let metadata = prost_types::Struct { fields: BTreeMap::from([("NODE_NAME".to_owned(), text)]) };
        let node = Some(Node { metadata: Some(metadata), ..Node::default() });
        let (requests, queue) = mpsc::channel(16);
        requests.send(DeltaDiscoveryRequest { node, ..first }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(queue));
        *request.metadata_mut() = credentials(folder, "one").metadata().unwrap();
        let channel = Connector::tcp(server.address).channel().await.unwrap();
        let answer = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(request).await.unwrap();
        Self { requests, responses: Box::pin(answer.into_inner()) }
    }

    async fn response(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("in time");
        next.map(|response| response.expect("an open stream"))
    }
}

fn addresses() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: ResourceType::Address.url().to_owned(), ..Default::default() }
}

fn session(server: &Server) -> SessionStatus {
    let node = server.nodes.all().get("node-1").cloned().unwrap_or_default();
    let types = node.streams.into_iter().flat_map(|stream| stream.types);
    types.filter(|(kind, _)| *kind == ResourceType::Address).map(|(_, status)| status).next().unwrap_or_default()
}

#[tokio::test]
async fn an_agent_that_never_acknowledges_is_sent_one_response_and_costs_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), any_port(), Some(&[workload("w0", "n")]), Limits::default()).await;
    let mut raw = Raw::open(folder.path(), &server, addresses()).await;
    let first = raw.response().await.unwrap();
    // Pods come and go, each with a name of its own.
    for number in 1..=2000 {
        server.publish(&[workload(&format!("w{number}"), "n")]);
    }
    until(|| session(&server).unacknowledged == 1).await;
    let status = session(&server);
    assert_eq!((status.nonce, status.held, status.pending), (1, 0, 0), "nothing piles up: {status:?}");
    assert_eq!(server.metric("weft_xds_responses_total"), 1);
    let acknowledged = DeltaDiscoveryRequest { response_nonce: first.nonce, ..addresses() };
    raw.requests.send(acknowledged).await.unwrap();
    let second = raw.response().await.unwrap();
    let names: Vec<&str> = second.resources.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        (names, second.removed_resources.as_slice()),
        (vec!["c//Pod/ns/w2000"], &["c//Pod/ns/w0".to_owned()][..])
    );
}

#[tokio::test]
async fn an_agent_that_holds_too_much_or_talks_too_long_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[workload("w", "n")]), Limits::default()).await;
    let many: HashMap<String, String> = (0..100_001).map(|number| (number.to_string(), "1".to_owned())).collect();
    let long = HashMap::from([("a".repeat(4096), "1".to_owned())]);
    for held in [many, long] {
        let first = DeltaDiscoveryRequest { initial_resource_versions: held.into_iter().collect(), ..addresses() };
        let mut raw = Raw::open(folder.path(), &server, first).await;
        let error = raw.response().await.unwrap_err();
        assert!(error.message().starts_with(Reason::Overloaded.code()), "{error}");
    }
    let mut raw = Raw::open(folder.path(), &server, addresses()).await;
    let nonce = raw.response().await.unwrap().nonce;
    let detail = Refusal { code: 3, message: format!("c//Pod/ns/w: {}", "no ".repeat(1_000_000)) };
    raw.requests
        .send(DeltaDiscoveryRequest { response_nonce: nonce, error_detail: Some(detail), ..addresses() })
        .await
        .unwrap();
    until(|| session(&server).refused.len() == 1).await;
    assert!(session(&server).refused[0].reason.len() <= 512);
}

#[tokio::test]
async fn a_node_that_reports_without_end_is_stopped_and_the_others_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[]), Limits::default()).await;
    let reporter = |token| Reporter::new(Connector::tcp(server.address), credentials(folder.path(), token));
    let report = |node: &str, pod: &str| Report {
        node: node.to_owned(),
        captured: vec![Uid::of_pod("c", "ns", pod)],
        agent_version: "1".to_owned(),
    };
    let (greedy, begin) = (reporter("one"), Instant::now());
    let mut taken = 0_u32;
    let refused = loop {
        match greedy.report(&report("node-1", "known")).await {
            Ok(_) => taken += 1,
            Err(ReportError::Failed { reason, .. }) => break reason,
            Err(error) => panic!("{error}"),
        }
        assert!(taken < 5000, "no end");
    };
    assert_eq!(refused, Some(Reason::Overloaded));
    let allowed = 100.0 + 10.0 * begin.elapsed().as_secs_f64() + 1.0;
    assert!(taken >= 99 && f64::from(taken) <= allowed, "{taken} of {allowed}");
    assert!(reporter("two").report(&report("node-2", "other")).await.is_ok());
}

/// `captured.json` is gone: the pods that are captured look plain until their nodes have reported again.
#[tokio::test]
async fn a_server_without_its_state_changes_nothing_for_those_who_hold_a_mesh_until_reports_are_in() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), any_port(), Some(&[workload("a", "captured")]), Limits::default()).await;
    let mut old = client(folder.path(), server.address, "node-1", "one");
    old.status(StreamStatus::is_ready).await;
    let address = server.address;
    drop(server);
    let due = tokio::time::Instant::now() + Duration::from_millis(1500);
    let resources = [workload("a", "plain")];
    let mut server = start_with(folder.path(), address, Some(&resources), (Limits::default(), Some(due))).await;
    until(|| server.nodes.streams() == 1).await;
    let mut new = client(folder.path(), address, "node-2", "two");
    new.status(StreamStatus::is_ready).await;
    assert!(old.changes().len() == 1, "who comes with empty hands is served, who holds a mesh keeps it");
    server.publish(&[workload("a", "captured")]); // the report is in
    let answers = |client: &crate::bench::Client| {
        let batches = client.batches.lock().unwrap();
        batches.iter().filter(|batch| batch.first && batch.kind == ResourceType::Address).count()
    };
    until(|| answers(&old) == 2).await;
    assert!(tokio::time::Instant::now() >= due);
    assert_eq!(old.changes().len(), 1, "it never heard that the pod is plain: {:?}", old.changes());
}

fn policy(number: usize) -> Resource {
    let key = PolicyKey::new("shop", &format!("p{number}"));
    let groups = Vec::new();
    Resource::Policy(Policy { key, scope: Scope::Selected, action: Action::Allow, mode: Default::default(), groups })
}

/// `number` policies from `from` on, and forty pods that name a fortieth of them each.
fn program(from: usize, number: usize) -> Vec<Resource> {
    let pod = |pod: usize| {
        let mut workload = Workload::named("c", "shop", &format!("w{pod}"));
        let own = (from..from + number).filter(|policy| policy % 40 == pod);
        workload.policies = own.map(|policy| PolicyKey::new("shop", &format!("p{policy}"))).collect();
        Resource::Workload(workload)
    };
    (from..from + number).map(policy).chain((0..40).map(pod)).collect()
}

#[tokio::test]
async fn a_thousand_policies_come_change_and_go_and_no_pod_ever_names_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { resources: 100, ..Limits::default() };
    let mut server = start(folder.path(), any_port(), Some(&program(0, 1000)), limits).await;
    let mut client = client(folder.path(), server.address, "node-1", "one");
    client.status(StreamStatus::is_ready).await;
    let holds =
        |client: &crate::bench::Client, expected: usize| client.mesh.lock().unwrap().policies().count() == expected;
    until(|| holds(&client, 1000)).await;
    // Half of them are replaced, then all but a few go.
    for (from, number) in [(500, 1000), (1490, 10)] {
        server.publish(&program(from, number));
        let first = PolicyKey::new("shop", &format!("p{from}"));
        until(|| holds(&client, number) && client.mesh.lock().unwrap().policy(&first).is_some()).await;
    }
    let mut mesh = Mesh::default();
    for batch in client.batches.lock().unwrap().iter() {
        for change in &batch.changes {
            mesh = mesh.apply(vec![change.clone()]);
            let touched = match change {
                Change::Upsert(Resource::Workload(workload)) => workload.policies.clone(),
                Change::Remove(ResourceKey::Policy(key)) => {
                    assert!(
                        mesh.workloads().all(|workload| !workload.policies.contains(key)),
                        "{key:?} is still named"
                    );
                    continue;
                }
                _ => continue,
            };
            assert!(touched.iter().all(|key| mesh.policy(key).is_some()), "{touched:?}");
        }
    }
}
