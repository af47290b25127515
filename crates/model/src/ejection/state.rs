//! All ejections of one agent: events in, standings and changes out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::report::{Change, ChangeKind, EjectionSettings, Fault, Report, Standing, Subject};

/// Subjects that are remembered; failures of others are not noted. 16,384: more than fail at a time in any mesh that still
/// works, and some 3 MiB.
const MOST: usize = 16_384;

/// Addresses of a node that must be silent before the node counts as dead.
const SILENT_ADDRESSES: u32 = 2;

/// See the [module](super).
#[derive(Debug, Default)]
pub struct Ejections {
    settings: EjectionSettings,
    entries: HashMap<Subject, Entry>,
}

/// One subject that is left out, for pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which.
    pub subject: Subject,
    /// Why.
    pub fault: Fault,
    /// Since when it has not been used as usual.
    pub since: Instant,
    /// When a connection may try it; `None` while one does.
    pub until: Option<Instant>,
    /// Ejections in a row.
    pub times: u32,
}

impl Ejections {
    /// Nothing is ejected.
    #[must_use]
    pub fn new(settings: EjectionSettings) -> Self {
        Self { settings, entries: HashMap::new() }
    }

    /// The numbers.
    #[must_use]
    pub fn settings(&self) -> &EjectionSettings {
        &self.settings
    }

    /// Subjects that are remembered. While there is none, nobody has to ask or tell anything but failures.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing has failed lately.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether connections may go over a subject.
    #[must_use]
    pub fn standing(&self, subject: &Subject, now: Instant) -> Standing {
        self.entries.get(subject).map_or(Standing::In, |entry| entry.standing(now))
    }

    /// A connection goes over the subject; if it is due, that is its probe.
    pub fn took(&mut self, subject: &Subject, now: Instant) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.probe(&self.settings, now);
        }
    }

    /// A connection failed. `spread` is a random number from 0 to 1.
    pub fn failed(&mut self, report: Report, now: Instant, spread: f64) -> Option<Change> {
        let Report { subject, fault, begun, silent, may_eject } = report;
        if self.entries.len() >= MOST && !self.entries.contains_key(&subject) {
            return None;
        }
        let needed = match (&subject, fault) {
            (Subject::Hop(_), _) => 1,
            (Subject::Node(_), _) => SILENT_ADDRESSES,
            (Subject::Endpoint(..), Fault::Reset) => self.settings.resets,
            (Subject::Endpoint(..), _) => self.settings.failures,
        };
        let entry = self.entries.entry(subject.clone()).or_insert_with(|| Entry::new(fault, now));
        if entry.is_out() && begun < entry.since {
            return None;
        }
        if !entry.fails(fault, needed, silent, now) {
            return None;
        }
        if !may_eject {
            // Too many others are out: it is needed.
            let out = entry.is_out();
            let after = now.saturating_duration_since(entry.first_out);
            entry.returns(now);
            return out.then_some(Change { subject, kind: ChangeKind::Returned { after } });
        }
        // The probe of a node may meet the one pod on it that has a firewall: that must not keep the others out for longer.
        let grows = !matches!(subject, Subject::Node(_));
        let lasts = entry.eject(&self.settings, grows, spread, now);
        Some(Change { subject, kind: ChangeKind::Ejected { fault, lasts } })
    }

    /// A connection that began at `begun` was answered.
    pub fn answered(&mut self, subject: &Subject, begun: Instant, now: Instant) -> Option<Change> {
        let entry = self.entries.get_mut(subject)?;
        if !entry.is_out() {
            entry.answered();
            return None;
        }
        if begun < entry.since {
            return None;
        }
        let after = now.saturating_duration_since(entry.first_out);
        entry.returns(now);
        Some(Change { subject: subject.clone(), kind: ChangeKind::Returned { after } })
    }

    /// A connection stands since now, which proves little of an application that resets what it accepted: its failures of that kind
    /// still count, all others are over.
    pub fn connected(&mut self, subject: &Subject, now: Instant) -> Option<Change> {
        let fault = self.entries.get(subject)?.fault;
        if fault == Fault::Reset { None } else { self.answered(subject, now, now) }
    }

    /// Forgets what is over. Call it now and then.
    pub fn tidy(&mut self, now: Instant) -> Vec<Change> {
        let settings = self.settings;
        let mut changes = Vec::new();
        self.entries.retain(|subject, entry| {
            let over = entry.is_over(&settings, now);
            if over && entry.is_out() {
                let after = now.saturating_duration_since(entry.first_out);
                changes.push(Change { subject: subject.clone(), kind: ChangeKind::Returned { after } });
            }
            !over
        });
        changes
    }

    /// What is left out now, in no order.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.is_out()).map(|(subject, entry)| Row {
            subject: subject.clone(),
            fault: entry.fault,
            since: entry.first_out,
            until: entry.until(),
            times: entry.repeats,
        })
    }
}

impl Row {
    /// How long it has been out.
    #[must_use]
    pub fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}
