//! Whether to believe the first answers of a stream when they take away most of what is held. Pure.
//!
//! A control plane that came back without its state, or before it has read its source, answers "there is nothing", and an
//! agent that believed it would forget the mesh: known addresses become unknown ones, which are spoken to in plaintext, and
//! policies are gone. So, until each type was answered wholly once, removals wait. Then:
//!
//! ```text
//!               more than half of every type is left, or the server says
//!            .- that it has read its source (`words::SYNCED`) ----------------> Settled: removals happen
//!  Judging --+                                                                    ^
//!            '- else -> Doubted --- it came back, or nothing else was said for ---'
//!                                   the time of confirmation
//! ```
//!
//! A type that a server does not answer at all holds up the others for the time of confirmation, and is judged when it is
//! answered. A stream that is lost meanwhile settles nothing: what was doubted stays, and the next stream is judged anew. All types
//! are judged together, since a policy that is gone opens what an address that is gone does not.
//! A response whose removals wait is answered when they are in force, or as refused when they are doubted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_model::{Change, ResourceKey};

use crate::convert::ResourceType;
use crate::proto::discovery::DeltaDiscoveryRequest;

/// How long a doubted answer must stand before it is believed: a control plane that starts has read its source within
/// seconds, and what stays meanwhile harms nobody: connections to what is really gone fail instead of going out in plain.
pub const CONFIRMATION: Duration = Duration::from_secs(30);

/// One response, after its subscriber took it in.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: ResourceType,
    pub(super) changes: Vec<Change>,
    /// The last response of the first answer, or a later one.
    pub(super) complete: bool,
    /// The server says that it has read its source.
    pub(super) synced: bool,
    /// Resources that the subscriber holds now.
    pub(super) held: usize,
    pub(super) reply: DeltaDiscoveryRequest,
}

/// What may happen now.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Released {
    /// To be put in force, in this order.
    pub(super) changes: Vec<(ResourceType, Vec<Change>)>,
    /// To be sent afterwards.
    pub(super) replies: Vec<DeltaDiscoveryRequest>,
    /// To be sent as refusals: what they answer is doubted.
    pub(super) doubted: Vec<DeltaDiscoveryRequest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not for ever, once something was said: a server may never answer one of the types.
    Judging {
        until: Option<Instant>,
    },
    Doubted {
        until: Instant,
    },
    Settled,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Doubt {
    confirmation: Duration,
    stage: Stage,
    types: BTreeMap<ResourceType, First>,
}

/// The first answer of one type.
#[derive(Debug, Default)]
struct First {
    /// Held when the stream was opened, with what was doubted then.
    before: usize,
    /// Held now, without what waits.
    now: usize,
    complete: bool,
    /// Its answer has stood for so long that it is believed without those of other types.
    believed: bool,
    synced: bool,
    waiting: BTreeSet<ResourceKey>,
    replies: Vec<DeltaDiscoveryRequest>,
}

impl First {
    fn is_doubtful(&self) -> bool {
        !self.synced && !self.believed && self.now * 2 < self.before
    }

    fn release(&mut self, kind: ResourceType, released: &mut Released) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            released.changes.push((kind, waiting.into_iter().map(Change::Remove).collect()));
        }
        released.replies.append(&mut self.replies);
    }
}

impl Doubt {
    pub(super) fn new(confirmation: Duration) -> Self {
        Self { confirmation, stage: Stage::Settled, types: BTreeMap::new() }
    }

    /// A stream was opened, with so many resources held of each type.
    pub(super) fn opened(&mut self, held: impl Iterator<Item = (ResourceType, usize)>, now: Instant) {
        self.stage = Stage::Judging { until: Some(now + self.confirmation) };
        for (kind, held) in held {
            let first = self.types.entry(kind).or_default();
            let waiting = std::mem::take(&mut first.waiting);
            *first = First { before: held + waiting.len(), now: held, waiting, ..First::default() };
        }
    }

    /// Takes a response in, and says what of it, and of earlier ones, may happen now.
    pub(super) fn take(&mut self, answer: Answer, now: Instant) -> Released {
        let Answer { kind, changes, complete, synced, held, reply } = answer;
        let first = self.types.entry(kind).or_default();
        if self.stage == Stage::Settled || first.believed {
            return Released { changes: vec![(kind, changes)], replies: vec![reply], doubted: Vec::new() };
        }
        if self.stage == (Stage::Judging { until: None }) {
            self.stage = Stage::Judging { until: Some(now + self.confirmation) };
        }
        first.now = held;
        first.complete |= complete;
        first.synced |= synced;
        let mut waits = false;
        let mut at_once = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Remove(key) => {
                    waits = true;
                    first.waiting.insert(key);
                }
                Change::Upsert(content) => {
                    first.waiting.remove(&content.key());
                    at_once.push(Change::Upsert(content));
                }
            }
        }
        let mut released = Released { changes: vec![(kind, at_once)], ..Released::default() };
        // A server that sends its answer in pieces waits for the reply to each.
        if waits && complete {
            first.replies.push(reply);
        } else {
            released.replies.push(reply);
        }
        self.judge(now, &mut released);
        released
    }

    fn judge(&mut self, now: Instant, released: &mut Released) {
        if !self.types.values().all(|first| first.complete) {
            return;
        }
        if !self.types.values().any(First::is_doubtful) {
            self.settle(released);
            return;
        }
        if matches!(self.stage, Stage::Judging { .. }) {
            self.stage = Stage::Doubted { until: now + self.confirmation };
        }
        for first in self.types.values_mut() {
            released.doubted.append(&mut first.replies);
        }
    }

    fn settle(&mut self, released: &mut Released) {
        self.stage = Stage::Settled;
        self.types.iter_mut().for_each(|(kind, first)| first.release(*kind, released));
    }

    /// When to ask [`Self::confirm`], if nothing comes before.
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.stage {
            Stage::Judging { until } => until,
            Stage::Doubted { until } => Some(until),
            Stage::Settled => None,
        }
    }

    /// The time of confirmation is over: nobody took it back. What was not answered yet is not believed for that: a server
    /// that is slow to answer is one that starts.
    pub(super) fn confirm(&mut self, now: Instant) -> Released {
        let mut released = Released::default();
        match self.wake() {
            Some(until) if until <= now => {}
            _ => return released,
        }
        if self.types.values().all(|first| first.complete) {
            self.settle(&mut released);
            return released;
        }
        self.stage = Stage::Judging { until: None };
        for (kind, first) in self.types.iter_mut().filter(|(_, first)| first.complete) {
            first.believed = true;
            first.release(*kind, &mut released);
        }
        released
    }

    /// Whether answers are doubted now.
    pub(super) fn is_doubting(&self) -> bool {
        matches!(self.stage, Stage::Doubted { .. })
    }

    /// Resources of a type that stay although the server says that they are gone, and how many were held.
    pub(super) fn waiting(&self, kind: ResourceType) -> (usize, usize) {
        self.types.get(&kind).map_or((0, 0), |first| (first.waiting.len(), first.before))
    }
}

#[cfg(test)]
mod tests;
