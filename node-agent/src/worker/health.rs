//! What this agent has learnt of endpoints, peers and nodes that connections failed at: `weft_model::ejection`, shared by all
//! workers, so that what one has met the others avoid.
//!
//! As long as nothing fails this is one load of a counter per connection; the lock is taken only while something is remembered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use weft_model::ejection::{Change, ChangeKind, EjectionSettings, Ejections, Fault, Report, Standing, Subject};
use weft_model::mesh::EndpointSet;
use weft_model::view::EjectionRow;
use weft_model::workload::Uid;
use weft_model::{Mesh, Reason, ServiceKey};

/// See the [module](self). Clones share it.
#[derive(Debug, Clone, Default)]
pub struct EndpointHealth(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Subjects that are remembered.
    remembered: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ejections: Ejections,
    counts: Counts,
}

/// What is counted, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ejections by kind of subject and fault.
    pub ejections: BTreeMap<(&'static str, &'static str), u64>,
    /// Attempts that failed, by reason; another endpoint was tried, or the connection refused.
    pub attempts: BTreeMap<Reason, u64>,
}

impl EndpointHealth {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(settings: EjectionSettings) -> Self {
        let health = Self::default();
        health.state().ejections = Ejections::new(settings);
        health
    }

    /// Whether one of these is left out now: they are used only when there is nothing else.
    pub fn avoids<I: IntoIterator<Item = Subject>>(&self, subjects: impl FnOnce() -> I) -> bool {
        if self.is_quiet() {
            return false;
        }
        let (state, now) = (self.state(), Instant::now());
        subjects().into_iter().any(|subject| state.ejections.standing(&subject, now) == Standing::Out)
    }

    /// A connection goes over these.
    pub fn took<I: IntoIterator<Item = Subject>>(&self, subjects: impl FnOnce() -> I) {
        if !self.is_quiet() {
            let (mut state, now) = (self.state(), Instant::now());
            subjects().into_iter().for_each(|subject| state.ejections.took(&subject, now));
        }
    }

    /// A connection stands, just now.
    pub fn connected<I: IntoIterator<Item = Subject>>(&self, subjects: impl FnOnce() -> I) {
        if !self.is_quiet() {
            let now = Instant::now();
            self.change(|state| {
                let of = |subject: Subject| state.connected(&subject, now);
                subjects().into_iter().filter_map(of).collect()
            });
        }
    }

    /// A connection that began at `begun` was answered by the application.
    pub fn answered(&self, begun: Instant, subject: impl FnOnce() -> Subject) {
        if !self.is_quiet() {
            let now = Instant::now();
            self.change(|state| state.answered(&subject(), begun, now).into_iter().collect());
        }
    }

    /// An application failed a connection that named its service.
    pub fn endpoint_failed(&self, mesh: &Mesh, service: &ServiceKey, at: (&Uid, u16), fault: Fault, begun: Instant) {
        let subject = Subject::Endpoint(at.0.clone(), at.1);
        self.change(|state| {
            let set = mesh.endpoints(service);
            let all = set.map_or(0, EndpointSet::len);
            let of_service = |uid: &Uid| set.is_some_and(|set| set.get(uid).is_some());
            let out = state.rows().filter(|row| match &row.subject {
                Subject::Endpoint(uid, _) => row.subject != subject && of_service(uid),
                Subject::Hop(_) | Subject::Node(_) => false,
            });
            let may_eject = state.settings().may_eject(out.count(), all);
            let report = Report { subject, fault, begun, silent: None, may_eject };
            state.failed(report, Instant::now(), rand::random()).into_iter().collect()
        });
    }

    /// The peer agent at an address failed a dial, or its tunnels; `node` when that speaks against its whole node.
    pub fn hop_failed(&self, hop: SocketAddr, node: Option<Arc<str>>, fault: Fault, begun: Instant) {
        let now = Instant::now();
        let of = |subject, silent| Report { subject, fault, begun, silent, may_eject: true };
        self.change(|state| {
            let node = node.map(|node| of(Subject::Node(node), Some(hop)));
            let reports = [Some(of(Subject::Hop(hop), None)), node].into_iter().flatten();
            reports.filter_map(|report| state.failed(report, now, rand::random())).collect()
        });
    }

    /// One attempt of a connection failed.
    pub fn count_attempt(&self, reason: Reason) {
        *self.state().counts.attempts.entry(reason).or_default() += 1;
    }

    /// Forgets what is over.
    pub fn tidy(&self) {
        if !self.is_quiet() {
            self.change(|state| state.tidy(Instant::now()));
        }
    }

    /// What is left out now, for pages.
    #[must_use]
    pub fn rows(&self) -> Vec<EjectionRow> {
        let now = Instant::now();
        let mut rows: Vec<EjectionRow> = self
            .state()
            .ejections
            .rows()
            .map(|row| EjectionRow {
                kind: row.subject.kind().to_owned(),
                subject: row.subject.to_string(),
                cause: row.fault.word().to_owned(),
                out_ms: milliseconds(row.lasts(now)),
                next_try_ms: row.until.map(|until| milliseconds(until.saturating_duration_since(now))),
                times: row.times,
            })
            .collect();
        rows.sort_by(|one, other| one.subject.cmp(&other.subject));
        rows
    }

    /// What was counted, for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    fn is_quiet(&self) -> bool {
        self.0.remembered.load(Ordering::Relaxed) == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement: a panic elsewhere spoils nothing.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, event: impl FnOnce(&mut Ejections) -> Vec<Change>) {
        let mut state = self.state();
        let changes = event(&mut state.ejections);
        for change in &changes {
            if let ChangeKind::Ejected { fault, .. } = change.kind {
                *state.counts.ejections.entry((change.subject.kind(), fault.word())).or_default() += 1;
            }
        }
        self.0.remembered.store(state.ejections.len(), Ordering::Relaxed);
        drop(state);
        changes.iter().for_each(say);
    }
}

fn say(change: &Change) {
    let (what, kind) = (&change.subject, change.subject.kind());
    match change.kind {
        ChangeKind::Ejected { fault, lasts } => {
            tracing::warn!(kind, %what, cause = fault.word(), seconds = lasts.as_secs_f32(), "left out: connections failed there");
        }
        ChangeKind::Returned { after } => {
            tracing::info!(kind, %what, seconds = after.as_secs_f32(), "used again");
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
