//! When to ask the CA for which certificate: who needs one, how urgently, when to renew, how long to wait after a failure.
//!
//! Pure: it is told what happened and what time it is, and answers what to do next; [`store`](crate::store) does it.
//! The rules are ztunnel's (`ambient-wire.md` section 10): refresh at half life, at most 8 requests at once, three
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

/// The limits; the defaults are those of `ambient-wire.md` section 10.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests under way at once.
    pub in_flight: usize,
    /// Pauses after failures of one identity.
    pub backoff: backoff::Settings,
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
        Self { in_flight: 8, backoff, renew_after: (0.45, 0.55) }
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

/// When the next request of one identity may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// At once.
    Now,
    /// At this time of day (renewal).
    At(SystemTime),
    /// At this tick (after a failure).
    After(Duration),
}

impl Due {
    /// How long until then; zero when it is due.
    fn wait(self, now: Moment) -> Duration {
        match self {
            Self::Now => Duration::ZERO,
            Self::At(time) => time.duration_since(now.wall).unwrap_or_default(),
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
    due: Due,
    in_flight: bool,
    backoff: Backoff,
    last_error: Option<String>,
}

impl Entry {
    /// A renewal is never urgent while the old certificate serves.
    fn urgency(&self, now: Moment) -> Priority {
        match self.validity {
            Some(validity) if !validity.is_expired(now.wall) => Priority::Background,
            _ => self.priority,
        }
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
        entry.validity = Some(validity);
        entry.due = Due::At(now.wall + validity.remaining(now.wall).mul_f64(share.clamp(0.0, 1.0)));
        entry.backoff.reset();
        entry.last_error = None;
        true
    }

    /// A request failed. False when the identity was forgotten meanwhile.
    pub fn failed(&mut self, ticket: &Ticket, error: String, now: Moment, dice: &mut impl Rng) -> bool {
        let Some(entry) = self.answered(ticket) else { return false };
        entry.due = Due::After(now.ticks + entry.backoff.next_delay(dice));
        entry.last_error = Some(error);
        true
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
