//! The server's side of one resource type on one stream: what the client has, and what it must be told next.
//!
//! ```text
//!             request() with the first of a type             respond() finds news
//!  Unopened ------------------------------------> Settled ------------------------> AwaitingAck(nonce)
//!                                                    ^                                     |
//!                                                    +---- request() with that nonce ------+
//! ```
//!
//! Only acknowledged versions count as held. A refused version is remembered with its reason and not sent again on this
//! stream; the next version of that resource is. Names wait in a set until they are looked at, so a name that changes ten
//! times while the client is slow is sent once, as it then is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;

use super::error_detail;
use super::snapshot::Snapshot;
use super::words::{MORE_TO_COME, WILDCARD};
use crate::convert::{Encoded, ResourceType};
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Packed, Resource};

/// How much one response may hold; the rest waits for its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Resources and removals together.
    pub resources: usize,
    /// Encoded bytes; one resource is sent whatever its size.
    pub bytes: usize,
}

impl Default for Limits {
    /// 1000 resources or 1 MiB: some milliseconds of work for an agent, so that it serves connections in between, and far
    /// below the 4 MiB that a gRPC client accepts when nobody raised its limit.
    fn default() -> Self {
        Self { resources: 1000, bytes: 1024 * 1024 }
    }
}

/// What a request said about the response before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing: only interest, or a nonce that is not the one awaited.
    Nothing,
    /// All of it is in force.
    Everything {
        /// How many resources and removals.
        resources: usize,
    },
    /// Some resources are not.
    Partly {
        /// Those, with the client's words.
        refused: Vec<Refused>,
    },
}

/// A resource that the client could not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its name.
    pub name: Arc<str>,
    /// Which version.
    pub version: Arc<str>,
    /// The client's words.
    pub reason: String,
}

/// For admin pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// Everything is wanted.
    pub wildcard: bool,
    /// Names that are wanted.
    pub names: usize,
    /// Resources that the client has acknowledged.
    pub held: usize,
    /// Resources and removals that wait for their acknowledgement.
    pub unacknowledged: usize,
    /// Names that wait to be looked at.
    pub pending: usize,
    /// Nonce of the last response.
    pub nonce: u64,
    /// Responses that were acknowledged.
    pub acks: u64,
    /// Responses that were refused in part or whole.
    pub nacks: u64,
    /// What the client does not use now.
    pub refused: Vec<Refused>,
}

#[derive(Debug, Clone)]
struct InFlight {
    nonce: String,
    upserts: Vec<(Arc<str>, Arc<str>)>,
    removals: Vec<Arc<str>>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Session {
    kind: ResourceType,
    limits: Limits,
    opened: bool,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    held: HashMap<Arc<str>, Arc<str>>,
    refused: BTreeMap<Arc<str>, Refused>,
    in_flight: Option<InFlight>,
    pending: BTreeSet<Arc<str>>,
    /// Where in `pending` the last response ended, so that names late in the alphabet get their turn under constant change.
    cursor: Option<Arc<str>>,
    /// Newly asked by name: answered even if there is no such resource, or the client has it already.
    owed: BTreeSet<Arc<str>>,
    /// The snapshot whose changes are in `pending`; none while everything must be compared.
    seen: Option<u64>,
    complete: bool,
    nonce: u64,
    acks: u64,
    nacks: u64,
}

impl Session {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(kind: ResourceType, limits: Limits) -> Self {
        Self {
            kind,
            limits,
            opened: false,
            wildcard: false,
            names: BTreeSet::new(),
            held: HashMap::new(),
            refused: BTreeMap::new(),
            in_flight: None,
            pending: BTreeSet::new(),
            cursor: None,
            owed: BTreeSet::new(),
            seen: None,
            complete: false,
            nonce: 0,
            acks: 0,
            nacks: 0,
        }
    }

    /// Takes one request of this type in. Ask [`Self::respond`] afterwards.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Acknowledged {
        let acknowledged = self.settle(&request);
        if !self.opened {
            self.opened = true;
            self.wildcard = request.resource_names_subscribe.is_empty();
            let held = request.initial_resource_versions.into_iter();
            self.held = held.map(|(name, version)| (name.into(), version.into())).collect();
            for name in request.resource_names_subscribe {
                // What the client holds already needs no other answer than its changes.
                let owed = !self.held.contains_key(name.as_str());
                self.subscribe(name, owed);
            }
        } else {
            for name in request.resource_names_subscribe {
                self.subscribe(name, true);
            }
        }
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name);
        }
        acknowledged
    }

    /// The next response, if there is something to say and the last one was answered.
    pub fn respond(&mut self, snapshot: &(impl Snapshot + ?Sized)) -> Option<DeltaDiscoveryResponse> {
        self.respond_with(snapshot, true)
    }

    /// As [`Self::respond`], but removals wait for a later call: what another type still names must not go before it.
    pub fn respond_without_removals(&mut self, snapshot: &(impl Snapshot + ?Sized)) -> Option<DeltaDiscoveryResponse> {
        self.respond_with(snapshot, false)
    }

    /// Whether a response waits for its answer.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.in_flight.is_some()
    }

    fn respond_with(
        &mut self,
        snapshot: &(impl Snapshot + ?Sized),
        with_removals: bool,
    ) -> Option<DeltaDiscoveryResponse> {
        if !self.opened || self.in_flight.is_some() {
            return None;
        }
        self.collect(snapshot);
        let mut response = DeltaDiscoveryResponse { type_url: self.kind.url().to_owned(), ..Default::default() };
        let mut sent = InFlight { nonce: String::new(), upserts: Vec::new(), removals: Vec::new() };
        let (mut bytes, mut withheld) = (0, Vec::new());
        while bytes < self.limits.bytes && sent.upserts.len() + sent.removals.len() < self.limits.resources {
            let Some(name) = self.next_pending() else { break };
            match self.news(snapshot, &name) {
                News::None => {}
                News::Removed if !with_removals => withheld.push(name),
                News::Removed => sent.removals.push(name),
                News::Changed(encoded) => {
                    bytes += encoded.bytes.len();
                    response.resources.push(to_wire(self.kind, &name, encoded));
                    sent.upserts.push((name, encoded.version.clone()));
                }
            }
        }
        let drained = self.pending.is_empty();
        self.pending.extend(withheld);
        let nothing = sent.upserts.is_empty() && sent.removals.is_empty();
        // The first answer is sent even if it is empty: clients wait for it to know that they have everything.
        if nothing && self.complete {
            return None;
        }
        self.complete |= drained;
        self.nonce += 1;
        sent.nonce = self.nonce.to_string();
        response.nonce.clone_from(&sent.nonce);
        response.removed_resources = sent.removals.iter().map(ToString::to_string).collect();
        response.system_version_info = snapshot.sequence(self.kind).to_string();
        if !self.complete {
            response.system_version_info.push_str(MORE_TO_COME);
        }
        self.in_flight = Some(sent);
        Some(response)
    }

    /// The version that the client holds, as far as it said so.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<&Arc<str>> {
        self.held.get(name)
    }

    /// What can be told of the session.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        let unacknowledged = self.in_flight.as_ref().map_or(0, |sent| sent.upserts.len() + sent.removals.len());
        SessionStatus {
            wildcard: self.wildcard,
            names: self.names.len(),
            held: self.held.len(),
            unacknowledged,
            pending: self.pending.len(),
            nonce: self.nonce,
            acks: self.acks,
            nacks: self.nacks,
            refused: self.refused.values().cloned().collect(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn subscribe(&mut self, name: String, owed: bool) {
        if name == WILDCARD {
            self.wildcard = true;
            self.seen = None;
            return;
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        if owed {
            self.owed.insert(name.clone());
        }
        self.pending.insert(name);
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            self.held.retain(|name, _| self.names.contains(name));
            self.refused.retain(|name, _| self.names.contains(name));
            return;
        }
        self.names.remove(name);
        self.owed.remove(name);
        if !self.wildcard {
            self.held.remove(name);
            self.refused.remove(name);
        }
    }

    /// Books the answer to the response in flight.
    fn settle(&mut self, request: &DeltaDiscoveryRequest) -> Acknowledged {
        let answers = |sent: &mut InFlight| sent.nonce == request.response_nonce;
        let Some(sent) = self.in_flight.take_if(answers) else { return Acknowledged::Nothing };
        let names = sent.upserts.iter().map(|(name, _)| &**name);
        let mut reasons =
            request.error_detail.as_ref().map(|status| error_detail::read(&status.message, names)).unwrap_or_default();
        let resources = sent.upserts.len() + sent.removals.len();
        let mut refused = Vec::new();
        for (name, version) in sent.upserts {
            if !self.wants(&name) {
                continue; // unsubscribed while it was under way
            }
            if let Some(reason) = reasons.remove(&*name) {
                let one = Refused { name: name.clone(), version, reason };
                refused.push(one.clone());
                self.refused.insert(name, one);
            } else {
                self.refused.remove(&name);
                self.held.insert(name, version);
            }
        }
        for name in sent.removals {
            self.held.remove(&name);
            self.refused.remove(&name);
        }
        if request.error_detail.is_none() {
            self.acks += 1;
            Acknowledged::Everything { resources }
        } else {
            self.nacks += 1;
            Acknowledged::Partly { refused }
        }
    }

    /// Puts what may be news into `pending`.
    fn collect(&mut self, snapshot: &(impl Snapshot + ?Sized)) {
        let sequence = snapshot.sequence(self.kind);
        let changed = match self.seen {
            Some(seen) if seen == sequence => return,
            Some(seen) => snapshot.changed_since(self.kind, seen),
            None => None,
        };
        match changed {
            Some(names) => self.pending.extend(names),
            None if self.wildcard => {
                self.pending.extend(snapshot.names(self.kind).cloned());
                self.pending.extend(self.held.keys().cloned());
            }
            None => {
                self.pending.extend(self.names.iter().cloned());
                self.pending.extend(self.held.keys().cloned());
            }
        }
        self.seen = Some(sequence);
    }

    fn next_pending(&mut self) -> Option<Arc<str>> {
        let after = match &self.cursor {
            Some(name) => self.pending.range((Bound::Excluded(name.clone()), Bound::Unbounded)).next(),
            None => None,
        };
        let name = after.or_else(|| self.pending.first())?.clone();
        self.pending.remove(&name);
        self.cursor = Some(name.clone());
        Some(name)
    }

    fn news<'s>(&mut self, snapshot: &'s (impl Snapshot + ?Sized), name: &Arc<str>) -> News<'s> {
        let owed = self.owed.remove(name);
        if !self.wants(name) {
            self.held.remove(name);
            return News::None;
        }
        let held = self.held.get(name);
        match snapshot.get(self.kind, name) {
            None if owed || held.is_some() => News::Removed,
            None => {
                self.refused.remove(name);
                News::None
            }
            Some(encoded) if owed => News::Changed(encoded),
            Some(encoded) if held == Some(&encoded.version) => {
                self.refused.remove(name); // back to the version that the client has
                News::None
            }
            Some(encoded) if self.refused.get(name).is_some_and(|one| one.version == encoded.version) => News::None,
            Some(encoded) => News::Changed(encoded),
        }
    }
}

enum News<'s> {
    None,
    Removed,
    Changed(&'s Encoded),
}

fn to_wire(kind: ResourceType, name: &str, encoded: &Encoded) -> Resource {
    Resource {
        version: encoded.version.to_string(),
        resource: Some(Packed { type_url: kind.url().to_owned(), value: encoded.bytes.clone() }),
        name: name.to_owned(),
        aliases: Vec::new(),
    }
}
