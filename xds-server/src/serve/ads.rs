//! Delta discovery over gRPC: one task per stream, one session per type in it.
//!
//! A stream belongs to the node of its token. Nothing is answered before the source has been read once: an empty catalog
//! would tell every agent to forget the mesh.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_model::Reason;
use weft_runtime::drain;
use weft_runtime::shared::Reader;
use weft_wire::convert::ResourceType;
use weft_wire::delta::{Acknowledged, Limits};
use weft_wire::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use weft_wire::refusal::refuse;

use super::caller::{Caller, caller_of};
use super::conversation::Conversation;
use super::interest::View;
use super::metrics::{ServeMetrics, of};
use super::nodes::{Nodes, OpenStream, Settled};
use crate::catalog::Catalog;

/// The key of the node's name in the metadata of a stream (Istio's).
const NODE_NAME: &str = "NODE_NAME";
/// Who opens a stream and says nothing is sent away: a good client sends its first request with the headers.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Responses that wait to be written. Each type has at most one unanswered, so sending never waits for long.
const RESPONSE_QUEUE: usize = 4;
/// Types that we do not have and a client may ask for before it is taken for broken.
const FOREIGN_TYPES: usize = 16;

/// Names that a stream may ask for by type; an agent that asks by name asks for what its own pods talk to. Each is kept as
/// long as the stream.
const NAMES_PER_TYPE: usize = 100_000;

/// Bytes of a resource's name and version: cluster, namespace, kind and name have at most 253 each, versions are short.
const LONGEST_NAME: usize = 2048;
/// Letters of what a client calls itself: the rest is of no use to anybody.
const CLIENT_NAME: usize = 128;

/// What the service needs.
#[derive(Debug, Clone)]
pub struct AdsSettings {
    /// What to give; none until the source was read.
    pub catalog: Reader<Option<Catalog>>,
    /// Where streams are entered.
    pub nodes: Nodes,
    /// What is counted.
    pub metrics: ServeMetrics,
    /// Streams end when it begins.
    pub drain: drain::Watch,
    /// How much a response may hold.
    pub limits: Limits,
    /// The state is new: until then the nodes' reports of captured pods may be missing, and whoever held a mesh before keeps
    /// what it holds. It would take captured pods for plain ones otherwise.
    pub reports_due: Option<Instant>,
}

/// How long after a start without state reports may come in: agents come back within 15 s (`weft_wire::delta::BACKOFF`) and
/// report at once.
pub const REPORTS_TIME: Duration = Duration::from_secs(20);

/// The discovery service.
#[derive(Debug, Clone)]
pub struct Ads {
    settings: AdsSettings,
}

impl Ads {
    /// Serves from the catalog.
    #[must_use]
    pub fn new(settings: AdsSettings) -> Self {
        Self { settings }
    }
}

type Answer = Result<DeltaDiscoveryResponse, Status>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = caller_of(request.extensions())?;
        let from = request.remote_addr().map(|address| address.to_string()).unwrap_or_default();
        let (answers, queue) = mpsc::channel(RESPONSE_QUEUE);
        let task = StreamTask {
            settings: self.settings.clone(),
            caller,
            from,
            answers,
            conversation: Conversation::new(self.settings.limits),
            foreign: BTreeSet::new(),
            waits_until: None,
        };
        // It ends with its stream, with the drain, or when the connection is lost; the drain waits for it.
        tokio::spawn(task.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

struct StreamTask {
    settings: AdsSettings,
    caller: Caller,
    from: String,
    answers: mpsc::Sender<Answer>,
    conversation: Conversation,
    foreign: BTreeSet<String>,
    /// Nothing is said before.
    waits_until: Option<Instant>,
}

impl StreamTask {
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let node = self.caller.node.clone();
        match self.serve(&mut requests).await {
            Ok(()) => tracing::info!(%node, "the node closed its stream"),
            Err(status) => {
                tracing::info!(%node, code = ?status.code(), message = status.message(), "the node's stream ends");
                let _gone = self.answers.send(Err(status)).await.is_err();
            }
        }
    }

    async fn serve(&mut self, requests: &mut Streaming<DeltaDiscoveryRequest>) -> Result<(), Status> {
        // Before anything is read: a request may be large, and how many are read at once must be bounded, too.
        let entered = self.settings.nodes.open(&self.caller.node, String::new(), self.from.clone());
        let Some(mut entry) = entered else {
            self.settings.metrics.refused_streams.inc();
            return Err(refuse(Reason::Overloaded, "the node has too many streams already"));
        };
        let ended = self.begin(requests, &entry).await;
        entry.set_end(match &ended {
            Ok(()) => "closed by the node".to_owned(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        });
        ended
    }

    async fn begin(
        &mut self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        entry: &OpenStream,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(FIRST_REQUEST, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no request in the first 10 s of the stream"))??;
        let Some(first) = first else { return Ok(()) };
        let client = check_node(&self.caller, first.node.as_ref())?;
        tracing::info!(node = %self.caller.node, client, from = self.from, "a node opened a stream");
        entry.name(client);
        self.settings.metrics.streams.inc();
        let ended = self.converse(first, requests, entry).await;
        self.settings.metrics.streams.dec();
        ended
    }

    async fn converse(
        &mut self,
        first: DeltaDiscoveryRequest,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        entry: &OpenStream,
    ) -> Result<(), Status> {
        let mut catalog = self.settings.catalog.clone();
        let drain = self.settings.drain.clone();
        self.take(first, entry).await?;
        loop {
            if self.waits_until.is_none_or(|until| until <= Instant::now()) {
                self.waits_until = None;
                self.tell(&catalog, entry).await?;
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.waits_until.unwrap_or_else(Instant::now)), if self.waits_until.is_some() => {}
                request = requests.message() => match request? {
                    Some(request) => self.take(request, entry).await?,
                    None => return Ok(()),
                },
                changed = catalog.changed() => {
                    changed.map_err(|_| refuse(Reason::Draining, "the control plane is shutting down"))?;
                }
                _guard = drain.signalled() => {
                    return Err(refuse(Reason::Draining, "the control plane is shutting down; connect again"));
                }
                () = self.answers.closed() => return Err(Status::cancelled("the connection is gone")),
            }
        }
    }

    async fn take(&mut self, request: DeltaDiscoveryRequest, entry: &OpenStream) -> Result<(), Status> {
        let Some(kind) = ResourceType::from_url(&request.type_url) else {
            return self.answer_foreign(request).await;
        };
        if let Some(name) = asked_by_address(kind, &request) {
            let detail = format!("'{name}': look-up by address (XDS_ON_DEMAND) is not served; subscribe to everything");
            return Err(Status::unimplemented(detail));
        }
        self.check_held(&request)?;
        if !request.initial_resource_versions.is_empty() {
            self.waits_until = self.settings.reports_due;
        }
        let node = &self.caller.node;
        match self.conversation.request(kind, request) {
            Acknowledged::Nothing => {}
            Acknowledged::Everything { resources } => {
                self.settings.metrics.acks.get_or_create(&of(kind)).inc();
                tracing::debug!(%node, %kind, resources, "in force");
            }
            Acknowledged::Partly { refused } => {
                self.settings.metrics.nacks.get_or_create(&of(kind)).inc();
                for one in refused {
                    tracing::error!(%node, %kind, name = %one.name, version = %one.version, reason = one.reason, "a node refuses a resource");
                }
            }
        }
        let status = self.conversation.status(kind);
        let names = status.names;
        entry.note(kind, status);
        if names > NAMES_PER_TYPE {
            return Err(Status::invalid_argument(format!("at most {NAMES_PER_TYPE} names; subscribe to everything")));
        }
        Ok(())
    }

    /// What a client says that it holds is kept as long as its stream: honest ones hold about as much as there is.
    fn check_held(&self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let catalog = self.settings.catalog.load();
        let known: usize = catalog
            .as_ref()
            .as_ref()
            .map_or(0, |catalog| ResourceType::ALL.iter().map(|kind| catalog.len(*kind)).sum());
        let limit = NAMES_PER_TYPE.max(4 * known);
        let held = &request.initial_resource_versions;
        if held.len() <= limit && held.iter().all(|(name, version)| name.len() + version.len() <= LONGEST_NAME) {
            return Ok(());
        }
        let detail = format!("{} resources are said to be held; at most {limit}, with names below 2 KiB", held.len());
        Err(refuse(Reason::Overloaded, &detail))
    }

    /// Sends what is due.
    async fn tell(&mut self, catalog: &Reader<Option<Catalog>>, entry: &OpenStream) -> Result<(), Status> {
        let version = catalog.load();
        let Some(catalog) = version.as_ref() else { return Ok(()) };
        let due = self.conversation.due(&View::new(catalog, &self.caller));
        if due.is_empty() && self.conversation.is_answered() {
            let refused = self.conversation.status(ResourceType::Authorization).refused;
            let refused = refused.into_iter().map(|refused| refused.name).collect();
            entry.settle(Settled { stamp: catalog.stamp(), refused });
        }
        for (kind, response) in due {
            let count = response.resources.len() + response.removed_resources.len();
            self.settings.metrics.responses.get_or_create(&of(kind)).inc();
            self.settings.metrics.resources.get_or_create(&of(kind)).inc_by(count as u64);
            entry.note(kind, self.conversation.status(kind));
            self.send(response).await?;
        }
        Ok(())
    }

    /// Of a type that we do not have there is nothing, and the client may be waiting to hear that.
    async fn answer_foreign(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if !self.foreign.insert(request.type_url.clone()) {
            return Ok(()); // its acknowledgement
        }
        if self.foreign.len() > FOREIGN_TYPES {
            return Err(Status::invalid_argument("too many unknown resource types"));
        }
        tracing::warn!(node = %self.caller.node, r#type = request.type_url, "a node asks for a type that there is not");
        let nonce = "none".to_owned();
        self.send(DeltaDiscoveryResponse { type_url: request.type_url, nonce, ..Default::default() }).await
    }

    async fn send(&self, response: DeltaDiscoveryResponse) -> Result<(), Status> {
        self.answers.send(Ok(response)).await.map_err(|_| Status::cancelled("the connection is gone"))
    }
}

/// The stream must be for the node that the token proves. Answers with what the client calls itself, which is only shown.
fn check_node(caller: &Caller, node: Option<&Node>) -> Result<String, Status> {
    let wrong = |detail: String| Err(refuse(Reason::WrongNode, &detail));
    match node.and_then(|node| metadata(node, NODE_NAME)) {
        Some(name) if *name == *caller.node => Ok(node.map(client_name).unwrap_or_default()),
        Some(name) => wrong(format!("the stream is for node '{name}', but the token is of node '{}'", caller.node)),
        None => wrong(format!("the first request names no node; its node.metadata must have {NODE_NAME}")),
    }
}

/// `network/address`, as ztunnel asks on demand (xDS without `*`). We know resources by their own names only, and
/// "there is no such resource" would make it send plaintext: no answer is the safe one.
fn asked_by_address(kind: ResourceType, request: &DeltaDiscoveryRequest) -> Option<&str> {
    let by_address = |name: &str| match name.split_once('/') {
        Some((_, address)) => address.parse::<IpAddr>().is_ok(),
        None => false,
    };
    let names = request.resource_names_subscribe.iter().map(String::as_str);
    names.filter(|_| kind == ResourceType::Address).find(|name| by_address(name))
}

fn metadata<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &node.metadata.as_ref()?.fields.get(key)?.kind {
        Some(prost_types::value::Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

/// Program and version: ours says its version, a stock ztunnel begins its id with its kind and may say Istio's version.
fn client_name(node: &Node) -> String {
    let kind = node.id.split('~').next().unwrap_or_default();
    let name = match (metadata(node, "WEFT_VERSION"), metadata(node, "ISTIO_VERSION")) {
        (Some(version), _) => format!("weft-node-agent {version}"),
        (None, Some(version)) => format!("{kind} {version}"),
        (None, None) => kind.to_owned(),
    };
    name.chars().take(CLIENT_NAME).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost_types::value::Kind;
    use rstest::rstest;
    use tonic::Code;
    use weft_wire::refusal::reason_of;

    use super::*;

    #[rstest]
    #[case(None, false)]
    #[case(Some(("NODE_NAME", Kind::StringValue("node-1".to_owned()))), true)]
    #[case(Some(("NODE_NAME", Kind::StringValue("node-2".to_owned()))), false)]
    #[case(Some(("NODE_NAME", Kind::StringValue(String::new()))), false)]
    #[case(Some(("NODE_NAME", Kind::NumberValue(1.0))), false)]
    #[case(Some(("NAME", Kind::StringValue("node-1".to_owned()))), false)]
    fn whose_stream(#[case] field: Option<(&str, Kind)>, #[case] accepted: bool) {
        let caller = Caller { node: "node-1".into() };
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let fields: BTreeMap<_, _> = field.into_iter().map(|(key, kind)| (key.to_owned(), value(kind))).collect();
        let node = Node { metadata: Some(prost_types::Struct { fields }), ..Node::default() };
        let checked = check_node(&caller, Some(&node));
        assert_eq!(checked.is_ok(), accepted);
        if let Err(status) = checked {
            assert_eq!((status.code(), reason_of(&status)), (Code::PermissionDenied, Some(Reason::WrongNode)));
        }
        assert!(check_node(&caller, None).is_err());
    }

    #[rstest]
    #[case("/10.0.0.1", true)]
    #[case("network-1/fd00::1", true)]
    #[case("shop/cart.shop.svc.cluster.local", false)]
    #[case("c//Pod/shop/cart-1", false)]
    #[case("c/networking.istio.io/ServiceEntry/ns/name/10.0.0.1", false)]
    #[case("*", false)]
    fn by_address(#[case] name: &str, #[case] expected: bool) {
        let names = vec!["ns/host".to_owned(), name.to_owned()];
        let request = DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() };
        assert_eq!(asked_by_address(ResourceType::Address, &request), expected.then_some(name));
        assert_eq!(asked_by_address(ResourceType::Authorization, &request), None);
    }

    #[rstest]
    #[case(&[("WEFT_VERSION", "0.1.0"), ("ISTIO_VERSION", "1.31.0")], "weft-node-agent 0.1.0")]
    #[case(&[("ISTIO_VERSION", "1.31.0")], "ztunnel 1.31.0")]
    #[case(&[], "ztunnel")]
    fn who_it_is(#[case] fields: &[(&str, &str)], #[case] expected: &str) {
        let value = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = fields.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
        let id = "ztunnel~1.1.1.1~a.b~b.svc.cluster.local".to_owned();
        let node = Node { id, metadata: Some(prost_types::Struct { fields }), ..Node::default() };
        assert_eq!(client_name(&node), expected);
    }
}
