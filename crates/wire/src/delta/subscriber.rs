//! The client's side of one resource type: what it holds, and how it answers.
//!
//! ```text
//!            open()                       receive()
//!  Closed ----------> AwaitingResponse -----------------> the same, one acknowledgement per response
//!     ^                       |
//!     +----- stream lost -----+      what is held stays held, and the next open() says so
//! ```
//!
//! A resource that cannot be read is refused by name; the last good version of it stays in force **and** stays the
//! version that the next stream names as held, so that the server sends the new one again, or its removal. A policy that
//! never had a good version gets a stand-in that fails closed, held with a version that no server has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost::Message;
use weft_model::{Change, Resource, ResourceKey};

use super::error_detail;
use super::words::{MORE_TO_COME, WILDCARD};
use crate::convert::{DecodeError, ResourceType, decode, policy_stand_in};
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource, Status};
use crate::proto::istio::security::Authorization;

/// google.rpc.Code INVALID_ARGUMENT: the code of every NACK.
const INVALID_ARGUMENT: i32 = 3;

/// What a client wants of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// All resources.
    Everything,
    /// These, by name or alias.
    Names(BTreeSet<String>),
}

/// What came of one response.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// To be applied before the reply is sent; removals come first.
    pub changes: Vec<Change>,
    /// What could not be read.
    pub rejected: Vec<Rejection>,
    /// The ACK or NACK.
    pub reply: DeltaDiscoveryRequest,
}

/// One resource that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its name in the response.
    pub name: String,
    /// What is wrong.
    pub error: DecodeError,
}

#[derive(Debug, Clone)]
struct Held {
    version: String,
    key: ResourceKey,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Subscriber {
    kind: ResourceType,
    subscription: Subscription,
    held: HashMap<String, Held>,
    rejected: BTreeMap<String, String>,
    answered: BTreeSet<String>,
    complete: bool,
    nonce: String,
    server_version: String,
}

impl Subscriber {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(kind: ResourceType, subscription: Subscription) -> Self {
        Self {
            kind,
            subscription,
            held: HashMap::new(),
            rejected: BTreeMap::new(),
            answered: BTreeSet::new(),
            complete: false,
            nonce: String::new(),
            server_version: String::new(),
        }
    }

    /// The first request of a new stream. The caller adds the node.
    pub fn open(&mut self) -> DeltaDiscoveryRequest {
        // The server sends a refused resource again if it is still so; if it is gone, nobody would say.
        self.rejected.clear();
        self.nonce.clear();
        let (subscribe, unsubscribe) = match &self.subscription {
            Subscription::Everything => (Vec::new(), Vec::new()),
            // An empty list would mean everything; only this pair means nothing.
            Subscription::Names(names) if names.is_empty() => (vec![WILDCARD.to_owned()], vec![WILDCARD.to_owned()]),
            Subscription::Names(names) => (names.iter().cloned().collect(), Vec::new()),
        };
        let held = self.held.iter().map(|(name, held)| (name.clone(), held.version.clone()));
        DeltaDiscoveryRequest {
            type_url: self.kind.url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: held.collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Takes one response in. Apply the changes, then send the reply.
    #[must_use]
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Received {
        let mut changes = Vec::with_capacity(response.resources.len() + response.removed_resources.len());
        for name in response.removed_resources {
            self.rejected.remove(&name);
            if let Some(held) = self.held.remove(&name) {
                changes.push(Change::Remove(held.key));
            }
            self.note_answer(name);
        }
        let mut rejected = Vec::new();
        for resource in response.resources {
            if !self.wants(&resource) {
                continue; // unsubscribed while it was under way
            }
            let name = resource.name.clone();
            match read(self.kind, &resource) {
                Ok(content) => {
                    self.rejected.remove(&name);
                    for answered in resource.aliases.into_iter().chain([name.clone()]) {
                        self.note_answer(answered);
                    }
                    self.held.insert(name, Held { version: resource.version, key: content.key() });
                    changes.push(Change::Upsert(content));
                }
                Err(error) => {
                    if !self.held.contains_key(&name)
                        && let Some(content) = stand_in(self.kind, &resource)
                    {
                        self.held.insert(name.clone(), Held { version: String::new(), key: content.key() });
                        changes.push(Change::Upsert(content));
                    }
                    self.rejected.insert(name.clone(), error.to_string());
                    rejected.push(Rejection { name, error });
                }
            }
        }
        self.complete |= !response.system_version_info.ends_with(MORE_TO_COME);
        self.nonce.clone_from(&response.nonce);
        self.server_version = response.system_version_info;
        let reply = self.reply(response.nonce, &rejected);
        Received { changes, rejected, reply }
    }

    /// Wants these, too. None if they are all wanted already.
    pub fn subscribe(&mut self, names: impl IntoIterator<Item = String>) -> Option<DeltaDiscoveryRequest> {
        let Subscription::Names(wanted) = &mut self.subscription else { return None };
        let added: Vec<String> = names.into_iter().filter(|name| wanted.insert(name.clone())).collect();
        (!added.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: self.kind.url().to_owned(),
            resource_names_subscribe: added,
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// Does not want these any more, by the names of the resources: they are forgotten at once.
    pub fn unsubscribe(&mut self, names: &[String]) -> (Vec<Change>, Option<DeltaDiscoveryRequest>) {
        let Subscription::Names(wanted) = &mut self.subscription else { return (Vec::new(), None) };
        let dropped: Vec<String> = names.iter().filter(|name| wanted.remove(*name)).cloned().collect();
        for name in &dropped {
            self.answered.remove(name);
            self.rejected.remove(name);
        }
        let forgotten = dropped.iter().filter_map(|name| self.held.remove(name));
        let changes = forgotten.map(|held| Change::Remove(held.key)).collect();
        let request = (!dropped.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: self.kind.url().to_owned(),
            resource_names_unsubscribe: dropped,
            ..DeltaDiscoveryRequest::default()
        });
        (changes, request)
    }

    /// Which type it is for.
    #[must_use]
    pub fn kind(&self) -> ResourceType {
        self.kind
    }

    /// Whether one whole answer has ever been received: what is held is (or was) all there is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the server has said of this name, which was asked for, what it is or that it is not.
    #[must_use]
    pub fn is_answered(&self, name: &str) -> bool {
        self.answered.contains(name)
    }

    /// How many resources are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Names that the server offers in a form that cannot be read, with the reason.
    #[must_use]
    pub fn rejected(&self) -> &BTreeMap<String, String> {
        &self.rejected
    }

    /// The nonce of the last response of this stream; empty before.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What the server calls its version.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    fn wants(&self, resource: &WireResource) -> bool {
        match &self.subscription {
            Subscription::Everything => true,
            Subscription::Names(names) => {
                names.contains(&resource.name) || resource.aliases.iter().any(|alias| names.contains(alias))
            }
        }
    }

    /// Only of names that were asked for: all others would be remembered for ever.
    fn note_answer(&mut self, name: String) {
        if let Subscription::Names(names) = &self.subscription
            && names.contains(&name)
        {
            self.answered.insert(name);
        }
    }

    fn reply(&self, nonce: String, rejected: &[Rejection]) -> DeltaDiscoveryRequest {
        let reasons: Vec<(String, String)> =
            rejected.iter().map(|one| (one.name.clone(), one.error.to_string())).collect();
        let pairs = reasons.iter().map(|(name, reason)| (name.as_str(), reason.as_str()));
        let error_detail =
            (!reasons.is_empty()).then(|| Status { code: INVALID_ARGUMENT, message: error_detail::write(pairs) });
        DeltaDiscoveryRequest {
            type_url: self.kind.url().to_owned(),
            response_nonce: nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }
}

/// What is in force instead of a resource that cannot be read and was not held: a policy that is left out would be open.
fn stand_in(kind: ResourceType, resource: &WireResource) -> Option<Resource> {
    if kind != ResourceType::Authorization {
        return None;
    }
    let message = Authorization::decode(resource.resource.as_ref()?.value.clone()).ok()?;
    let content = Resource::Policy(policy_stand_in(&message)?);
    (content.key().to_string() == resource.name).then_some(content)
}

fn read(kind: ResourceType, resource: &WireResource) -> Result<Resource, DecodeError> {
    let packed = resource.resource.as_ref().ok_or(DecodeError::Unset { field: "resource" })?;
    if packed.type_url != kind.url() {
        let problem = format!("'{}' is not the type of the response", packed.type_url);
        return Err(DecodeError::Text { field: "resource.type_url", problem });
    }
    let content = decode(kind, &packed.value)?;
    let key = content.key().to_string();
    if key == resource.name { Ok(content) } else { Err(DecodeError::Name { name: resource.name.clone(), key }) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use weft_model::authz::{Connection, evaluate};
    use weft_model::{Mesh, Workload};

    use super::*;
    use crate::proto::discovery::Packed;
    use crate::proto::istio::security::{Address, Group, Match, Rules};

    const KIND: ResourceType = ResourceType::Authorization;

    /// A policy of the namespace "shop" with a range that is none.
    fn unreadable(action: i32) -> Authorization {
        let range = Address { address: vec![10, 0, 0], length: 8 };
        let one = Match { source_ips: vec![range], ..Match::default() };
        let groups = vec![Group { rules: vec![Rules { matches: vec![one] }] }];
        Authorization {
            name: "p".into(),
            namespace: "shop".into(),
            scope: 1,
            action,
            groups,
            ..Authorization::default()
        }
    }

    fn response(message: &Authorization) -> DeltaDiscoveryResponse {
        let packed = Packed { type_url: KIND.url().into(), value: message.encode_to_vec().into() };
        let resource =
            WireResource { name: "shop/p".into(), version: "1".into(), resource: Some(packed), ..Default::default() };
        DeltaDiscoveryResponse { resources: vec![resource], nonce: "1".into(), ..Default::default() }
    }

    fn is_open(mesh: &Mesh, namespace: &str) -> bool {
        let connection =
            Connection { identity: None, source: [10, 0, 0, 1].into(), destination: ([10, 0, 0, 2], 80).into() };
        evaluate(mesh, &Workload::named("c", namespace, "cart"), &connection).enforced.is_ok()
    }

    #[rstest]
    #[case::allow(0)]
    #[case::deny(1)]
    #[case::an_action_of_next_year(7)]
    fn a_policy_that_cannot_be_read_closes_its_scope_until_it_can_or_is_gone(#[case] action: i32) {
        let mut subscriber = Subscriber::new(KIND, Subscription::Everything);
        let _request = subscriber.open();
        let received = subscriber.receive(response(&unreadable(action)));
        assert!(received.reply.error_detail.is_some(), "and the server hears of it");
        let mesh = Mesh::default().apply(received.changes);
        assert_eq!((is_open(&mesh, "shop"), is_open(&mesh, "bank")), (false, true));
        // A new stream asks for it again, and hears when it is gone.
        assert_eq!(subscriber.open().initial_resource_versions.get("shop/p").map(String::as_str), Some(""));
        let removed = DeltaDiscoveryResponse { removed_resources: vec!["shop/p".into()], ..Default::default() };
        assert!(is_open(&mesh.apply(subscriber.receive(removed).changes), "shop"));
    }

    #[test]
    fn the_last_good_version_is_no_worse_than_a_stand_in() {
        let mut subscriber = Subscriber::new(KIND, Subscription::Everything);
        let _request = subscriber.open();
        let good = Authorization { groups: vec![], ..unreadable(1) };
        let mesh = Mesh::default().apply(subscriber.receive(response(&good)).changes);
        let received = subscriber.receive(response(&unreadable(1)));
        assert_eq!((received.changes.len(), received.rejected.len()), (0, 1));
        assert!(is_open(&mesh, "shop"), "a Deny without rules denies nothing");
    }
}
