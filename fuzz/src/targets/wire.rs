//! What a control plane and its agents write to each other.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use weft_model::workload::Workload;
use weft_model::{Change, Mesh, Resource};
use weft_wire::convert::{Encoded, ResourceType, decode, encode};
use weft_wire::delta::{Limits, Session, Snapshot, Subscriber, Subscription};
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::outcome::Outcome;

/// One resource: the first byte says of which type. What is accepted is written canonically, and both indexes take it.
pub(super) fn resource(bytes: &[u8]) -> Outcome {
    let Some((first, bytes)) = bytes.split_first() else { return Outcome::of(&"empty") };
    let kind = ResourceType::ALL[usize::from(first % 2)];
    let read = decode(kind, bytes);
    if let Ok(resource) = &read {
        let written = encode(resource);
        let again = decode(kind, &written.bytes).expect("what we write we read");
        assert_eq!(&again, resource);
        assert_eq!(encode(&again), written, "the same value, the same bytes");
        assert!(written.bytes.len() <= 4 * bytes.len() + 1024);
        let key = resource.key();
        let mesh = Mesh::default().apply(vec![Change::Upsert(resource.clone()), Change::Upsert(again)]);
        let gone = mesh.apply(vec![Change::Remove(key)]);
        assert_eq!((gone.workloads().count(), gone.services().count(), gone.policies().count()), (0, 0, 0));
    }
    Outcome::of(&read).past(read.is_ok())
}

/// A response to an agent: what cannot be read is refused by name, and the reply answers this response.
pub(super) fn delta_response(bytes: &[u8]) -> Outcome {
    let Ok(response) = DeltaDiscoveryResponse::decode(bytes) else { return Outcome::of(&"not the message") };
    let mut outcome = Outcome::of(&"read");
    let mut mesh = Mesh::default();
    for kind in ResourceType::ALL {
        for wanted in [Subscription::Everything, Subscription::Names([String::from("a/b")].into())] {
            let mut subscriber = Subscriber::new(kind, wanted);
            let _hello = subscriber.open();
            let received = subscriber.receive(response.clone());
            assert_eq!(received.reply.response_nonce, response.nonce);
            assert_eq!(received.reply.type_url, kind.url());
            assert_eq!(received.reply.error_detail.is_some(), !received.rejected.is_empty());
            assert!(received.changes.len() <= response.resources.len() + response.removed_resources.len());
            outcome = outcome.and(Outcome::of(&received.rejected)).and(Outcome::of(&received.changes.len().min(3)));
            outcome = outcome.past(!received.changes.is_empty());
            mesh = mesh.apply(received.changes);
            let second = subscriber.receive(response.clone());
            mesh = mesh.apply(second.changes);
            let held = subscriber.open().initial_resource_versions.len();
            assert!(held <= response.resources.len());
        }
    }
    outcome
}

/// Requests of an agent, one behind the other with a length before each: the server says only what was asked for.
pub(super) fn delta_request(bytes: &[u8]) -> Outcome {
    let snapshot = Three::new();
    let mut session = Session::new(ResourceType::Address, Limits { resources: 2, bytes: 1 << 20 });
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut outcome = Outcome::of(&"begin");
    // A request costs at least its length, so the input bounds the loop.
    while let Ok(request) = DeltaDiscoveryRequest::decode_length_delimited(&mut rest) {
        let subscribed = request.resource_names_subscribe.len();
        let acknowledged = session.request(request);
        let response = session.respond(&snapshot);
        if let Some(response) = &response {
            assert!(response.resources.len() + response.removed_resources.len() <= 2);
            assert!(
                response.resources.iter().all(|resource| snapshot.get(ResourceType::Address, &resource.name).is_some())
            );
        }
        assert!(session.respond(&snapshot).is_none(), "one unanswered response at a time");
        outcome = outcome.past(response.is_some());
        let sent = response.map(|response| (response.resources.len(), response.removed_resources.len().min(2)));
        outcome = outcome.and(Outcome::of(&acknowledged)).and(Outcome::of(&sent)).and(Outcome::of(&subscribed.min(2)));
        if rest.is_empty() {
            break;
        }
    }
    let status = session.status();
    assert!(status.names <= bytes.len() && status.pending <= bytes.len() + 3 && status.held <= bytes.len() + 3);
    outcome
}

/// A server's whole content: three workloads.
struct Three {
    resources: Vec<(Arc<str>, Encoded)>,
}

impl Three {
    fn new() -> Self {
        let named = |name| {
            let workload = Resource::Workload(Workload::named("Kubernetes", "shop", name));
            (Arc::from(workload.key().to_string()), encode(&workload))
        };
        Self { resources: ["a", "b", "c"].map(named).into() }
    }
}

impl Snapshot for Three {
    fn sequence(&self, _: ResourceType) -> u64 {
        1
    }

    fn get(&self, _: ResourceType, name: &str) -> Option<&Encoded> {
        self.resources.iter().find(|(known, _)| &**known == name).map(|(_, encoded)| encoded)
    }

    fn names(&self, _: ResourceType) -> Box<dyn Iterator<Item = &Arc<str>> + '_> {
        Box::new(self.resources.iter().map(|(name, _)| name))
    }

    fn changed_since(&self, _: ResourceType, sequence: u64) -> Option<Vec<Arc<str>>> {
        (sequence > 0).then(Vec::new)
    }
}
