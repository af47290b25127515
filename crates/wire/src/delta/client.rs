//! The client's end of a whole stream: the subscribers of all its types, and what of their answers is believed
//! ([`super::doubt`]). Pure: messages in, changes and messages out, on the caller's clock. [`super::DeltaStream`] drives it
//! over gRPC.
//!
//! ```text
//!  open() ---> requests, policies first
//!  take(response), confirm() ---> put the changes in force, then send the replies
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use thiserror::Error;
use weft_model::Change;

use super::doubt::{Answer, Doubt, Released};
use super::subscriber::{Rejection, Subscriber, Subscription};
use super::words::{MORE_TO_COME, SYNCED};
use crate::convert::ResourceType;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status};

/// google.rpc.Code FAILED_PRECONDITION: the code of an answer to what is doubted.
const FAILED_PRECONDITION: i32 = 9;

/// A response of a type that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the control plane sent '{0}', which was not asked for")]
pub struct ForeignType(String);

/// See the module.
#[derive(Debug)]
pub struct Client {
    subscribers: BTreeMap<ResourceType, Subscriber>,
    doubt: Doubt,
    confirmation: Duration,
}

/// What may happen now.
#[derive(Debug, Default, PartialEq)]
pub struct Due {
    /// To be put in force, in this order.
    pub changes: Vec<(ResourceType, Vec<Change>)>,
    /// To be sent afterwards.
    pub replies: Vec<DeltaDiscoveryRequest>,
}

/// What came of one response.
#[derive(Debug, PartialEq)]
pub struct Taken {
    /// Of which type it was.
    pub kind: ResourceType,
    /// What of it could not be read.
    pub rejected: Vec<Rejection>,
    /// What of it, and of earlier ones, may happen now.
    pub due: Due,
}

impl Client {
    /// Holds nothing yet. `confirmation`: how long a first answer that takes away most of what is held must stand; normally
    /// [`super::CONFIRMATION`].
    #[must_use]
    pub fn new(subscriptions: impl IntoIterator<Item = (ResourceType, Subscription)>, confirmation: Duration) -> Self {
        let subscribers = subscriptions.into_iter().map(|(kind, wanted)| (kind, Subscriber::new(kind, wanted)));
        Self { subscribers: subscribers.collect(), doubt: Doubt::new(confirmation), confirmation }
    }

    /// The first requests of a new stream. The caller adds the node to the first of them.
    pub fn open(&mut self, now: Instant) -> Vec<DeltaDiscoveryRequest> {
        let held = self.subscribers.iter().map(|(kind, subscriber)| (*kind, subscriber.held()));
        self.doubt.opened(held, now);
        // Policies are asked for first: a workload that names one which is not here yet is refused everything.
        self.subscribers.values_mut().rev().map(Subscriber::open).collect()
    }

    /// Takes one response in.
    ///
    /// # Errors
    /// It is of a type that was not asked for.
    pub fn take(&mut self, response: DeltaDiscoveryResponse, now: Instant) -> Result<Taken, ForeignType> {
        let subscriber = ResourceType::from_url(&response.type_url)
            .and_then(|kind| self.subscribers.get_mut(&kind))
            .ok_or_else(|| ForeignType(response.type_url.clone()))?;
        let kind = subscriber.kind();
        let complete = !response.system_version_info.ends_with(MORE_TO_COME);
        let synced = response.system_version_info.starts_with(SYNCED);
        let received = subscriber.receive(response);
        let (held, reply) = (subscriber.held(), received.reply);
        let answer = Answer { kind, changes: received.changes, complete, synced, held, reply };
        let released = self.doubt.take(answer, now);
        Ok(Taken { kind, rejected: received.rejected, due: self.due(released) })
    }

    /// When to ask [`Self::confirm`], if nothing comes before.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        self.doubt.wake()
    }

    /// Time has passed, and nobody took back what was said.
    pub fn confirm(&mut self, now: Instant) -> Due {
        let released = self.doubt.confirm(now);
        self.due(released)
    }

    /// What is doubted is not in force, so it is not acknowledged.
    fn due(&self, released: Released) -> Due {
        let Released { changes, mut replies, doubted } = released;
        let refuse = |mut reply: DeltaDiscoveryRequest| {
            let refusal = || Status { code: FAILED_PRECONDITION, message: self.words_of_doubt() };
            reply.error_detail.get_or_insert_with(refusal);
            reply
        };
        replies.extend(doubted.into_iter().map(refuse));
        Due { changes, replies }
    }

    /// What is wanted.
    pub fn kinds(&self) -> impl Iterator<Item = ResourceType> + '_ {
        self.subscribers.keys().copied()
    }

    /// One type.
    #[must_use]
    pub fn subscriber(&self, kind: ResourceType) -> Option<&Subscriber> {
        self.subscribers.get(&kind)
    }

    /// Whether answers are doubted now.
    #[must_use]
    pub fn is_doubting(&self) -> bool {
        self.doubt.is_doubting()
    }

    /// Resources of a type that stay although the server says that they are gone, as far as that is doubted.
    #[must_use]
    pub fn doubted(&self, kind: ResourceType) -> usize {
        if self.is_doubting() { self.doubt.waiting(kind).0 } else { 0 }
    }

    /// What is doubted, for people.
    #[must_use]
    pub fn words_of_doubt(&self) -> String {
        let kinds = self.subscribers.keys().map(|kind| (kind, self.doubt.waiting(*kind)));
        let counts: Vec<String> =
            kinds.map(|(kind, (waiting, before))| format!("{waiting} of {before} of {kind}")).collect();
        let patience = self.confirmation.as_secs();
        format!(
            "the control plane's first answer takes away {}; they stay until it says so for {patience} s",
            counts.join(", ")
        )
    }
}
