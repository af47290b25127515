//! What one stream is told, and in which order. Pure: requests in, responses out, no I/O.
//!
//! A node must never hold a workload that names a policy which it does not have: it would refuse everything to that
//! workload. New policies go first, then, when they are in force, workloads, and policies that are gone last ("make before
//! break", as Envoy's ADS orders clusters and endpoints).

use std::collections::BTreeMap;

use weft_wire::convert::ResourceType;
use weft_wire::delta::{Acknowledged, Limits, SYNCED, Session, SessionStatus, Snapshot};
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Both types of one stream.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    limits: Limits,
    sessions: BTreeMap<ResourceType, Session>,
}

impl Conversation {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, sessions: BTreeMap::new() }
    }

    /// Takes a request of one type in. Ask [`Self::due`] afterwards.
    pub fn request(&mut self, kind: ResourceType, request: DeltaDiscoveryRequest) -> Acknowledged {
        let limits = self.limits;
        self.sessions.entry(kind).or_insert_with(|| Session::new(kind, limits)).request(request)
    }

    /// What must be sent now: at most one response of each type, none while its last one is unanswered. There is no snapshot
    /// before the source was read, and every response says so.
    pub fn due(&mut self, snapshot: &impl Snapshot) -> Vec<(ResourceType, DeltaDiscoveryResponse)> {
        let (policies, addresses) = (ResourceType::Authorization, ResourceType::Address);
        let mut due = vec![(policies, self.next(policies, |session| session.respond_without_removals(snapshot)))];
        if !self.awaits_answer(policies) {
            due.push((addresses, self.next(addresses, |session| session.respond(snapshot))));
        }
        if !self.awaits_answer(policies) && !self.awaits_answer(addresses) {
            due.push((policies, self.next(policies, |session| session.respond(snapshot))));
        }
        let said = |(kind, response): (ResourceType, Option<DeltaDiscoveryResponse>)| {
            let mut response = response?;
            response.system_version_info.insert_str(0, SYNCED);
            Some((kind, response))
        };
        due.into_iter().filter_map(said).collect()
    }

    /// What is held of a type, once it was asked for.
    #[must_use]
    pub fn session(&self, kind: ResourceType) -> Option<&Session> {
        self.sessions.get(&kind)
    }

    /// For admin pages.
    #[must_use]
    pub fn status(&self, kind: ResourceType) -> SessionStatus {
        self.sessions.get(&kind).map(Session::status).unwrap_or_default()
    }

    /// Whether both types were asked for and nothing waits for its answer: with nothing due, the node has all of that snapshot.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        ResourceType::ALL.iter().all(|kind| self.sessions.get(kind).is_some_and(|session| !session.awaits_answer()))
    }

    fn awaits_answer(&self, kind: ResourceType) -> bool {
        self.sessions.get(&kind).is_some_and(Session::awaits_answer)
    }

    fn next(
        &mut self,
        kind: ResourceType,
        respond: impl FnOnce(&mut Session) -> Option<DeltaDiscoveryResponse>,
    ) -> Option<DeltaDiscoveryResponse> {
        respond(self.sessions.get_mut(&kind)?)
    }
}
