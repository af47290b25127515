//! The client's stream against a scripted server, over in-memory pipes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use weft_model::service::Service;
use weft_model::{Change, Resource};
use weft_runtime::shared::Reader;

use super::{Batch, DeltaStream, NodeIdentity, StreamSettings, StreamStatus};
use crate::connect::{Connector, Credentials};
use crate::convert::{Encoded, ResourceType, encode};
use crate::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Packed, Resource as WireResource};

type Answer = Result<DeltaDiscoveryResponse, Status>;

/// One stream as the server sees it.
struct Opened {
    headers: MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::UnboundedSender<Answer>,
}

impl Opened {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        let next = tokio::time::timeout(Duration::from_secs(5), self.requests.message()).await;
        next.expect("a request in time").expect("a good request").expect("an open stream")
    }

    /// Both first requests, whichever comes first, Address before Authorization.
    async fn first_requests(&mut self) -> (DeltaDiscoveryRequest, DeltaDiscoveryRequest) {
        (self.request().await, self.request().await)
    }

    fn send(&self, kind: ResourceType, nonce: &str, resources: &[(&str, Encoded)], removed: &[&str]) {
        let resource = |(name, encoded): &(&str, Encoded)| WireResource {
            version: encoded.version.to_string(),
            resource: Some(Packed { type_url: kind.url().to_owned(), value: encoded.bytes.clone() }),
            name: (*name).to_owned(),
            aliases: Vec::new(),
        };
        let response = DeltaDiscoveryResponse {
            system_version_info: "v1".to_owned(),
            resources: resources.iter().map(resource).collect(),
            type_url: kind.url().to_owned(),
            nonce: nonce.to_owned(),
            removed_resources: removed.iter().map(ToString::to_string).collect(),
        };
        self.responses.send(Ok(response)).unwrap();
    }
}

struct Script(mpsc::UnboundedSender<Opened>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Script {
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, queue) = mpsc::unbounded_channel();
        let headers = request.metadata().clone();
        let _test_over = self.0.send(Opened { headers, requests: request.into_inner(), responses }).is_err();
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(queue))))
    }
}

struct Lab {
    streams: mpsc::UnboundedReceiver<Opened>,
    batches: mpsc::UnboundedReceiver<Batch>,
    status: Reader<StreamStatus>,
    /// While it is false every connection is refused.
    reachable: Arc<Mutex<bool>>,
    token: tempfile::NamedTempFile,
    _client: tokio::task::JoinHandle<()>,
}

fn lab() -> Lab {
    lab_with(super::CONFIRMATION)
}

fn lab_with(confirmation: Duration) -> Lab {
    let (opened, streams) = mpsc::unbounded_channel();
    let (dialled, mut dials) = mpsc::unbounded_channel::<tokio::io::DuplexStream>();
    let incoming = async_stream(move |context| dials.poll_recv(context));
    let service = AggregatedDiscoveryServiceServer::new(Script(opened));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let reachable = Arc::new(Mutex::new(true));
    let connector = Connector::new("http://control.test".parse().unwrap(), {
        let reachable = reachable.clone();
        move || {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let up = *reachable.lock().unwrap() && dialled.send(far).is_ok();
            async move { if up { Ok(near) } else { Err(std::io::ErrorKind::ConnectionRefused.into()) } }
        }
    });
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret\n").unwrap();
    let node = NodeIdentity {
        id: "ztunnel~1.1.1.1~a.b~b.svc.cluster.local".to_owned(),
        metadata: BTreeMap::from([("NODE_NAME".to_owned(), "node-1".to_owned())]),
    };
    let credentials =
        Credentials { token_file: Some(token.path().to_owned()), cluster: "Kubernetes".to_owned(), headers: vec![] };
    let settings = StreamSettings { confirmation, ..StreamSettings::everything(node, credentials) };
    let (stream, status) = DeltaStream::new(connector, settings);
    let (applied, batches) = mpsc::unbounded_channel();
    let client = tokio::spawn(async move {
        let never = stream.run(move |batch| drop(applied.send(batch))).await;
        match never {}
    });
    Lab { streams, batches, status, reachable, token, _client: client }
}

/// A channel of pipes as tonic wants its connections.
fn async_stream(
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<tokio::io::DuplexStream>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<tokio::io::DuplexStream>> {
    futures_util::stream::poll_fn(move |context| poll(context)).map(Ok)
}

fn service(name: &str, content: &str) -> Encoded {
    encode(&Resource::Service(Service::named("ns", content, name)))
}

async fn status_with(lab: &mut Lab, accept: impl FnMut(&StreamStatus) -> bool) -> Arc<StreamStatus> {
    let wait = lab.status.wait_until(accept);
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the status in time").unwrap()
}

#[tokio::test]
async fn says_who_it_is_applies_and_then_acknowledges() {
    let mut lab = lab();
    let mut server = lab.streams.recv().await.unwrap();
    assert_eq!(server.headers.get("authorization").unwrap(), "Bearer secret");
    assert_eq!(server.headers.get("clusterid").unwrap(), "Kubernetes");
    let (policies, addresses) = server.first_requests().await;
    let node = policies.node.unwrap();
    assert!(node.id.starts_with("ztunnel~"));
    assert!(node.metadata.unwrap().fields.contains_key("NODE_NAME"));
    assert_eq!(policies.type_url, ResourceType::Authorization.url());
    assert!(addresses.resource_names_subscribe.is_empty() && addresses.response_nonce.is_empty());

    server.send(ResourceType::Address, "n1", &[("ns/a", service("a", "1")), ("ns/b", service("b", "1"))], &[]);
    let batch = lab.batches.recv().await.unwrap();
    assert_eq!((batch.kind, batch.first, batch.changes.len()), (ResourceType::Address, true, 2));
    let reply = server.request().await;
    assert_eq!((reply.response_nonce.as_str(), reply.error_detail), ("n1", None));
    let status = status_with(&mut lab, |status| status.connected).await;
    assert!(!status.is_ready(), "policies are not answered");

    server.send(ResourceType::Authorization, "n2", &[], &[]);
    assert_eq!(lab.batches.recv().await.unwrap().changes.len(), 0);
    assert_eq!(server.request().await.response_nonce, "n2");
    let status = status_with(&mut lab, StreamStatus::is_ready).await;
    assert_eq!((status.types[&ResourceType::Address].held, status.streams), (2, 1));

    server.send(ResourceType::Address, "n3", &[("ns/b", service("b", "2"))], &["ns/a", "ns/never"]);
    let batch = lab.batches.recv().await.unwrap();
    assert!(!batch.first && matches!(batch.changes.as_slice(), [Change::Remove(_), Change::Upsert(_)]));
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_the_good_ones_are_applied() {
    let mut lab = lab();
    let mut server = lab.streams.recv().await.unwrap();
    server.first_requests().await;
    let garbage = Encoded::of(vec![0xff].into());
    let misnamed = service("other", "1");
    let sent = [("ns/a", service("a", "1")), ("ns/bad", garbage), ("ns/misnamed", misnamed)];
    server.send(ResourceType::Address, "n1", &sent, &[]);
    assert_eq!(lab.batches.recv().await.unwrap().changes.len(), 1);
    let detail = server.request().await.error_detail.unwrap();
    let lines: Vec<&str> = detail.message.lines().collect();
    assert_eq!((detail.code, lines.len()), (3, 2));
    assert!(lines[0].starts_with("ns/bad: not a istio.workload.Address message"), "{lines:?}");
    assert_eq!(lines[1], "ns/misnamed: the resource is named 'ns/misnamed' but is 'ns/other'");
    let status = status_with(&mut lab, |status| status.types[&ResourceType::Address].nacks == 1).await;
    assert_eq!(status.types[&ResourceType::Address].rejected[0].name, "ns/bad");
    drop(server);
    let mut server = lab.streams.recv().await.unwrap();
    let held = server.first_requests().await.1.initial_resource_versions;
    assert_eq!(held.into_keys().collect::<Vec<_>>(), ["ns/a"]);
}

#[tokio::test]
async fn comes_back_with_what_it_holds_and_a_fresh_token() {
    let mut lab = lab();
    let mut server = lab.streams.recv().await.unwrap();
    server.first_requests().await;
    let content = service("a", "1");
    let sent = [("ns/a", content.clone()), ("ns/b", service("b", "1"))];
    server.send(ResourceType::Address, "n1", &sent, &[]);
    lab.batches.recv().await.unwrap();
    *lab.reachable.lock().unwrap() = false;
    std::fs::write(lab.token.path(), "rotated").unwrap();
    server.responses.send(Err(Status::unavailable("recycled"))).unwrap();
    let status = status_with(&mut lab, |status| !status.connected && status.last_error.is_some()).await;
    assert!(status.last_error.as_ref().unwrap().contains("recycled"), "{status:?}");
    // The connection itself lives on in tonic until its channel is dropped; the next one is refused, then allowed.
    *lab.reachable.lock().unwrap() = true;
    let mut server = lab.streams.recv().await.unwrap();
    assert_eq!(server.headers.get("authorization").unwrap(), "Bearer rotated");
    let (policies, addresses) = server.first_requests().await;
    assert!(policies.node.is_some() && policies.initial_resource_versions.is_empty());
    assert_eq!(addresses.initial_resource_versions["ns/a"], *content.version);
    server.send(ResourceType::Address, "n1", &[], &["ns/a"]);
    let batch = lab.batches.recv().await.unwrap();
    assert!(batch.first && batch.changes.is_empty(), "whether most of it goes is known when all types are answered");
    server.send(ResourceType::Authorization, "n2", &[], &[]);
    assert!(lab.batches.recv().await.unwrap().first);
    let batch = lab.batches.recv().await.unwrap();
    assert!(!batch.first && matches!(batch.changes.as_slice(), [Change::Remove(_)]));
    let replies = [server.request().await, server.request().await];
    assert!(replies.iter().all(|reply| reply.error_detail.is_none()), "in force, so acknowledged: {replies:?}");
}

/// A stock control plane that lost its state, or answers before it has read it.
#[tokio::test]
async fn an_empty_first_answer_takes_nothing_away_until_it_has_stood_for_a_while() {
    let mut lab = lab_with(Duration::from_millis(300));
    let (mut server, names) = (lab.streams.recv().await.unwrap(), ["ns/a", "ns/b", "ns/c"]);
    server.first_requests().await;
    let all: Vec<_> = names.iter().map(|name| (*name, service(&name[3..], "1"))).collect();
    server.send(ResourceType::Address, "n1", &all, &[]);
    lab.batches.recv().await.unwrap();
    for comes_back in [true, false] {
        server.responses.send(Err(Status::unavailable("recycled"))).unwrap();
        server = lab.streams.recv().await.unwrap();
        server.first_requests().await;
        server.send(ResourceType::Address, "n1", &[], &names);
        server.send(ResourceType::Authorization, "n2", &[], &[]);
        assert!(lab.batches.recv().await.unwrap().changes.is_empty());
        assert!(lab.batches.recv().await.unwrap().changes.is_empty());
        let status = status_with(&mut lab, |status| status.types[&ResourceType::Address].doubted == 3).await;
        assert!(status.last_error.as_ref().unwrap().contains("takes away 3 of 3"), "{status:?}");
        // Not in force, so not acknowledged; the policies are.
        let replies = [server.request().await, server.request().await];
        let refused = replies.iter().filter(|reply| reply.error_detail.is_some()).map(|reply| &*reply.response_nonce);
        assert_eq!(refused.collect::<Vec<_>>(), ["n1"], "{replies:?}");
        if comes_back {
            server.send(ResourceType::Address, "n3", &all[..2], &[]);
            assert_eq!(lab.batches.recv().await.unwrap().changes.len(), 2);
            let batch = lab.batches.recv().await.unwrap();
            assert!(matches!(batch.changes.as_slice(), [Change::Remove(_)]), "two of three are there: {batch:?}");
            assert_eq!(server.request().await.error_detail, None);
            status_with(&mut lab, |status| status.last_error.is_none()).await;
            server.send(ResourceType::Address, "n4", &all[2..], &[]);
            lab.batches.recv().await.unwrap();
        } else {
            let batch = lab.batches.recv().await.unwrap();
            assert_eq!(batch.changes.len(), 3, "nothing else was said");
            assert!(batch.changes.iter().all(|change| matches!(change, Change::Remove(_))));
        }
    }
}

#[tokio::test]
async fn a_type_that_nobody_asked_for_ends_the_stream() {
    let mut lab = lab();
    let server = lab.streams.recv().await.unwrap();
    let foreign = DeltaDiscoveryResponse { type_url: "type.googleapis.com/x".to_owned(), ..Default::default() };
    server.responses.send(Ok(foreign)).unwrap();
    let status = status_with(&mut lab, |status| status.last_error.is_some()).await;
    assert!(status.last_error.as_ref().unwrap().contains("type.googleapis.com/x"));
    assert!(lab.streams.recv().await.is_some(), "and another one is opened");
}
