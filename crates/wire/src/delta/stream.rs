//! Drives subscribers over gRPC: connect, subscribe, apply, acknowledge; and again, with back-off, for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use weft_model::Change;
use weft_runtime::backoff::{self, Backoff};
use weft_runtime::shared::{self, Reader, Writer};

use super::client::{Client, Due, ForeignType};
use super::doubt::CONFIRMATION;
use super::status::StreamStatus;
use super::subscriber::Subscription;
use crate::connect::{ConnectError, Connector, Credentials, CredentialsError, MESSAGE_LIMIT, causes};
use crate::convert::ResourceType;
use crate::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

/// 10 ms doubling to 15 s (as ztunnel), half of it random.
pub const BACKOFF: backoff::Settings =
    backoff::Settings { initial: Duration::from_millis(10), cap: Duration::from_secs(15), factor: 2.0, jitter: 0.5 };
/// Requests that wait to be written: one first request and one reply per type, so this is never full with a server that
/// sends one response per type at a time; with any other it holds back reading.
const REQUEST_QUEUE: usize = 16;

/// Who opens the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    /// `ztunnel~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`; istiod learns the proxy type from the first word.
    pub id: String,
    /// NAME, NAMESPACE, INSTANCE_IPS, NODE_NAME, CLUSTER_ID, NETWORK and the like.
    pub metadata: BTreeMap<String, String>,
}

/// What a stream needs to know.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Who we are.
    pub node: NodeIdentity,
    /// Token and headers.
    pub credentials: Credentials,
    /// What we want.
    pub subscriptions: Vec<(ResourceType, Subscription)>,
    /// How to wait between attempts; normally [`BACKOFF`].
    pub backoff: backoff::Settings,
    /// How long a first answer that takes away most of what is held must stand; normally [`CONFIRMATION`].
    pub confirmation: Duration,
}

impl StreamSettings {
    /// Everything of every type.
    #[must_use]
    pub fn everything(node: NodeIdentity, credentials: Credentials) -> Self {
        let subscriptions = ResourceType::ALL.map(|kind| (kind, Subscription::Everything)).into();
        Self { node, credentials, subscriptions, backoff: BACKOFF, confirmation: CONFIRMATION }
    }
}

/// The changes of one response.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Of which type.
    pub kind: ResourceType,
    /// What changed; removals come first. May be empty.
    pub changes: Vec<Change>,
    /// The first of this type since the stream was opened: what changed while there was none.
    pub first: bool,
}

/// The client's end of the control plane's stream.
#[derive(Debug)]
pub struct DeltaStream {
    connector: Connector,
    settings: StreamSettings,
    client: Client,
    /// Types that were answered since the stream was opened.
    answered: BTreeSet<ResourceType>,
    status: Writer<StreamStatus>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("the control plane ended the stream ({:?}): {}", .0.code(), causes(.0))]
    Status(#[from] Status),
    #[error("the control plane ended the stream")]
    Finished,
    #[error(transparent)]
    ForeignType(#[from] ForeignType),
}

/// From this rest on, every attempt that failed is worth a line; the many quick ones before are not, but for the first.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

fn is_worth_a_warning(failures: u32, rest: Duration) -> bool {
    failures <= 1 || rest >= WORTH_A_LINE
}

impl DeltaStream {
    /// A stream that is not open yet, and the reader of its status.
    #[must_use]
    pub fn new(connector: Connector, settings: StreamSettings) -> (Self, Reader<StreamStatus>) {
        let client = Client::new(settings.subscriptions.clone(), settings.confirmation);
        let (status, reader) = shared::channel(StreamStatus::new(client.kinds()));
        (Self { connector, settings, client, answered: BTreeSet::new(), status }, reader)
    }

    /// Keeps a stream open and hands each batch to `apply`, which returns when it is in force: only then is it
    /// acknowledged. Never returns; drop it to end it (between two batches, never within one).
    pub async fn run(mut self, mut apply: impl FnMut(Batch)) -> Infallible {
        let mut backoff = Backoff::new(self.settings.backoff);
        loop {
            let ended = self.one_stream(&mut apply, &mut backoff).await;
            let Err(error) = ended;
            let delay = backoff.next_delay(&mut rand::rng());
            let text = error.to_string();
            let origin = self.connector.origin();
            if is_worth_a_warning(backoff.failures(), delay) {
                tracing::warn!(error = %text, %origin, retry_in = ?delay, "no stream to the control plane");
            } else {
                tracing::debug!(error = %text, %origin, retry_in = ?delay, "no stream to the control plane");
            }
            self.change_status(|status| {
                status.set_connected(false);
                status.last_error = Some(text);
            });
            tokio::time::sleep(delay).await;
        }
    }

    async fn one_stream(&mut self, apply: &mut impl FnMut(Batch), backoff: &mut Backoff) -> Result<Infallible, Ended> {
        let (requests, mut responses) = self.open().await?;
        loop {
            let confirmed = self.client.wake().map(Instant::from_std);
            let due = tokio::select! {
                response = responses.message() => {
                    let response = response?.ok_or(Ended::Finished)?;
                    let due = self.take(response)?;
                    backoff.reset();
                    due
                }
                () = tokio::time::sleep_until(confirmed.unwrap_or_else(Instant::now)), if confirmed.is_some() => {
                    let doubted = self.client.is_doubting();
                    let due = self.client.confirm(Instant::now().into_std());
                    if doubted && !self.client.is_doubting() {
                        tracing::warn!("what the control plane's first answer took away is gone: nothing else was said");
                    }
                    due
                }
            };
            for (kind, changes) in due.changes {
                apply(Batch { kind, changes, first: self.answered.insert(kind) });
            }
            self.note_doubt();
            for reply in due.replies {
                // It fails when the stream is closed; then the next read says why.
                let _closed = requests.send(reply).await.is_err();
            }
        }
    }

    /// Takes one response in; what of it is to be applied, and answered then.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> Result<Due, ForeignType> {
        let doubted_before = self.client.is_doubting();
        let taken = self.client.take(response, Instant::now().into_std())?;
        let kind = taken.kind;
        for one in &taken.rejected {
            tracing::error!(kind = %kind, name = one.name, error = %one.error, "a resource of the control plane cannot be read");
        }
        if self.client.is_doubting() && !doubted_before {
            tracing::error!("{}", self.client.words_of_doubt());
        }
        self.note_response(kind, !taken.rejected.is_empty());
        Ok(taken.due)
    }

    fn note_doubt(&mut self) {
        let counts: Vec<_> = self.client.kinds().map(|kind| (kind, self.client.doubted(kind))).collect();
        let known = self.status.load();
        let same =
            |(kind, count): &(ResourceType, usize)| known.types.get(kind).is_some_and(|one| one.doubted == *count);
        if counts.iter().all(same) {
            return;
        }
        let text = self.client.is_doubting().then(|| self.client.words_of_doubt());
        self.change_status(|status| {
            for (kind, count) in counts {
                status.types.entry(kind).or_default().doubted = count;
            }
            status.last_error = text;
        });
    }

    async fn open(
        &mut self,
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Ended> {
        let metadata = self.settings.credentials.metadata()?;
        let channel = self.connector.channel().await?;
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        self.answered.clear();
        let mut node = Some(self.node());
        for mut request in self.client.open(Instant::now().into_std()) {
            request.node = node.take(); // the first request of a stream carries it
            let _closed = requests.send(request).await.is_err();
        }
        let mut request = Request::new(ReceiverStream::new(queue));
        *request.metadata_mut() = metadata;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        self.change_status(|status| status.streams += 1);
        Ok((requests, responses))
    }

    fn node(&self) -> Node {
        let text =
            |value: &String| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(value.clone())) };
        let fields = self.settings.node.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        Node { id: self.settings.node.id.clone(), metadata: Some(prost_types::Struct { fields }), ..Node::default() }
    }

    fn note_response(&mut self, kind: ResourceType, nacked: bool) {
        let mut status = (*self.status.load()).clone();
        status.set_connected(true);
        if let Some(subscriber) = self.client.subscriber(kind) {
            status.note(subscriber);
        }
        let one = status.types.entry(kind).or_default();
        one.responses += 1;
        one.nacks += u64::from(nacked);
        self.status.publish(status);
    }

    fn change_status(&mut self, change: impl FnOnce(&mut StreamStatus)) {
        let mut status = (*self.status.load()).clone();
        change(&mut status);
        self.status.publish(status);
    }
}
