//! When to ask the CA for which certificate: who needs one, how urgently, when to renew, how long to wait after a failure.
//!
//! Pure: it is told what happened and what time it is, and answers what to do next; [`store`](crate::store) does it.
//! The rules are ztunnel's: refresh at half life, at most 8 requests at once, three
//! priorities, a back-off per identity.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rand::{Rng, RngExt};
use weft_model::SpiffeId;
use weft_runtime::backoff::{self, Backoff};

use crate::certificate::Validity;

/// How urgent a certificate is; the smaller goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A connection waits for it.
    Live,
    /// A pod was enrolled and will need it.
    WarmUp,
    /// A valid one is there and gets old.
    Background,
}

/// The limits; the defaults are ztunnel's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests under way at once.
    pub in_flight: usize,
    /// Pauses after failures of one identity.
    pub backoff: backoff::Settings,
    /// The longest pause while the identity has no valid certificate and the CA is only away: it must be found again soon
    /// after it is back. Who is refused waits as [`backoff`](Self::backoff) says.
    pub urgent_cap: Duration,
    /// The share of its remaining life after which a new certificate is renewed, drawn between these two, so that the
    /// certificates of a node that were issued together are not renewed together.
    pub renew_after: (f64, f64),
}

impl Default for Limits {
    fn default() -> Self {
        let backoff = backoff::Settings {
            initial: Duration::from_millis(625), // less 20 % is 0.5 s: the first pause lies between 0.5 and 1 s
            cap: Duration::from_secs(150),
            factor: 2.0,
            jitter: 0.2,
        };
        // The cap of the stream to the control plane (`weft_wire::delta::BACKOFF`): both come back together.
        let urgent_cap = Duration::from_secs(15);
        Self { in_flight: 8, backoff, urgent_cap, renew_after: (0.45, 0.55) }
    }
}

/// One moment on two clocks: certificates live by the time of day, pauses by a clock that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time of day.
    pub wall: SystemTime,
    /// Time since any fixed start.
    pub ticks: Duration,
}

/// A certificate that came because of another bundle of roots is not renewed for another reason of this kind so soon: two
/// servers that do not agree on the roots would make an endless game of it.
const BUNDLE_REST: Duration = Duration::from_secs(30);

/// What a failed request says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The CA is away, busy, or its answer cannot be used.
    Away,
    /// It said no.
    Refused,
}

/// When the next request of one identity may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// At once.
    Now,
    /// A renewal: at this time of day or at this tick, whichever comes first, so that a clock that was set back does not put
    /// it off; and at once when the time of day is before the beginning of the certificate.
    Renewal { wall: SystemTime, ticks: Duration, not_before: SystemTime },
    /// At this tick (after a failure).
    After(Duration),
}

impl Due {
    /// How long until then; zero when it is due.
    fn wait(self, now: Moment) -> Duration {
        match self {
            Self::Now => Duration::ZERO,
            Self::Renewal { not_before, .. } if now.wall < not_before => Duration::ZERO,
            Self::Renewal { wall, ticks, .. } => {
                wall.duration_since(now.wall).unwrap_or_default().min(ticks.saturating_sub(now.ticks))
            }
            Self::After(ticks) => ticks.saturating_sub(now.ticks),
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// Tells an answer to this entry from one to a predecessor that was forgotten.
    generation: u64,
    users: usize,
    priority: Priority,
    validity: Option<Validity>,
    /// The tick at which the certificate in use came.
    issued: Duration,
    due: Due,
    in_flight: bool,
    backoff: Backoff,
    last_error: Option<String>,
}

impl Entry {
    fn is_served(&self, now: Moment) -> bool {
        self.validity.is_some_and(|validity| !validity.is_expired(now.wall))
    }

    /// A renewal is never urgent while the old certificate serves.
    fn urgency(&self, now: Moment) -> Priority {
        if self.is_served(now) { Priority::Background } else { self.priority }
    }
}

/// One request to make. Give it back with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// For whom.
    pub identity: SpiffeId,
    generation: u64,
}

/// What is known of one identity, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Pods that use it.
    pub users: usize,
    /// Of the certificate in use, if there is one.
    pub validity: Option<Validity>,
    /// A request is under way.
    pub in_flight: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// Of the last request, if it failed.
    pub last_error: Option<String>,
    /// Until the next request; zero when it waits for a free place or is under way.
    pub next_request: Duration,
}

/// All identities of the node.
#[derive(Debug, Default)]
pub struct Schedule {
    limits: Limits,
    entries: HashMap<SpiffeId, Entry>,
    generations: u64,
    in_flight: usize,
}

impl Schedule {
    /// Nobody needs anything yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// One more user of an identity. A certificate that nobody had asked for is due at once.
    pub fn ensure(&mut self, identity: &SpiffeId, priority: Priority) {
        if let Some(entry) = self.entries.get_mut(identity) {
            entry.users += 1;
            entry.priority = entry.priority.min(priority);
            return;
        }
        self.generations += 1;
        let entry = Entry {
            generation: self.generations,
            users: 1,
            priority,
            validity: None,
            issued: Duration::ZERO,
            due: Due::Now,
            in_flight: false,
            backoff: Backoff::new(self.limits.backoff),
            last_error: None,
        };
        self.entries.insert(identity.clone(), entry);
    }

    /// One user less; true when it was the last one and the identity is forgotten. Of an unknown identity: false.
    pub fn release(&mut self, identity: &SpiffeId) -> bool {
        let Some(entry) = self.entries.get_mut(identity) else { return false };
        entry.users -= 1;
        if entry.users > 0 {
            return false;
        }
        self.entries.remove(identity);
        true
    }

    /// A connection waits for it now. False when nobody uses the identity.
    pub fn hurry(&mut self, identity: &SpiffeId) -> bool {
        let Some(entry) = self.entries.get_mut(identity) else { return false };
        entry.priority = Priority::Live;
        true
    }

    /// Takes the requests that start now: the due ones, most urgent first, among equals the longest due, as many as the
    /// limit allows.
    pub fn start(&mut self, now: Moment) -> Vec<Ticket> {
        let room = self.limits.in_flight.saturating_sub(self.in_flight);
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.in_flight && entry.due.wait(now).is_zero())
            .map(|(identity, entry)| (entry.urgency(now), entry.generation, identity.clone()))
            .collect();
        due.sort_unstable_by_key(|(urgency, generation, _)| (*urgency, *generation));
        due.truncate(room);
        self.in_flight += due.len();
        for (_, _, identity) in &due {
            if let Some(entry) = self.entries.get_mut(identity) {
                entry.in_flight = true;
            }
        }
        due.into_iter().map(|(_, generation, identity)| Ticket { identity, generation }).collect()
    }

    /// How long nothing is to be done unless something happens; none when there is nothing to wait for.
    #[must_use]
    pub fn next_wake(&self, now: Moment) -> Option<Duration> {
        if self.in_flight >= self.limits.in_flight {
            return None; // an answer comes first
        }
        self.entries.values().filter(|entry| !entry.in_flight).map(|entry| entry.due.wait(now)).min()
    }

    /// A request succeeded. False when the identity was forgotten meanwhile: throw the certificate away.
    pub fn succeeded(&mut self, ticket: &Ticket, validity: Validity, now: Moment, dice: &mut impl Rng) -> bool {
        let (low, high) = self.limits.renew_after;
        let Some(entry) = self.answered(ticket) else { return false };
        let share = low + (high - low) * dice.random_range(0.0..1.0);
        let wait = validity.remaining(now.wall).mul_f64(share.clamp(0.0, 1.0));
        entry.validity = Some(validity);
        entry.issued = now.ticks;
        entry.due = Due::Renewal { wall: now.wall + wait, ticks: now.ticks + wait, not_before: validity.not_before };
        entry.backoff.reset();
        entry.last_error = None;
        true
    }

    /// A request failed. False when the identity was forgotten meanwhile.
    pub fn failed(&mut self, ticket: &Ticket, failure: (Failure, String), now: Moment, dice: &mut impl Rng) -> bool {
        let (urgent_cap, jitter) = (self.limits.urgent_cap, self.limits.backoff.jitter);
        let Some(entry) = self.answered(ticket) else { return false };
        let mut pause = entry.backoff.next_delay(dice);
        if failure.0 == Failure::Away && !entry.is_served(now) {
            pause = pause.min(urgent_cap.mul_f64(1.0 - jitter.clamp(0.0, 1.0) * dice.random_range(0.0..1.0)));
        }
        entry.due = Due::After(now.ticks + pause);
        entry.last_error = Some(failure.1);
        true
    }

    /// The CA may be back: ends all pauses after failures. How long the next ones are does not change.
    pub fn retry(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| matches!(entry.due, Due::After(_))) {
            entry.due = Due::Now;
        }
    }

    /// All certificates are to be renewed now: the roots that they were made of are not those of the mesh any more.
    pub fn renew_all(&mut self) {
        for entry in self.entries.values_mut() {
            entry.due = Due::Now;
        }
    }

    /// As [`renew_all`](Self::renew_all) for one identity, unless its certificate came just now.
    pub fn renew_for_bundle(&mut self, identity: &SpiffeId, now: Moment) {
        if let Some(entry) = self.entries.get_mut(identity)
            && entry.validity.is_some()
            && now.ticks.saturating_sub(entry.issued) >= BUNDLE_REST
        {
            entry.due = Due::Now;
        }
    }

    fn answered(&mut self, ticket: &Ticket) -> Option<&mut Entry> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let entry = self.entries.get_mut(&ticket.identity)?;
        if entry.generation != ticket.generation {
            return None;
        }
        entry.in_flight = false;
        Some(entry)
    }

    /// What is known of one identity, none when nobody uses it.
    #[must_use]
    pub fn status(&self, identity: &SpiffeId, now: Moment) -> Option<Status> {
        let entry = self.entries.get(identity)?;
        Some(Status {
            users: entry.users,
            validity: entry.validity,
            in_flight: entry.in_flight,
            failures: entry.backoff.failures(),
            last_error: entry.last_error.clone(),
            next_request: if entry.in_flight { Duration::ZERO } else { entry.due.wait(now) },
        })
    }

    /// Every identity in use, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &SpiffeId> {
        self.entries.keys()
    }
}

#[cfg(test)]
mod tests;
