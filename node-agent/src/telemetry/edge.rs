//! An edge of the mesh: who to whom, how, and how it ended; and its counters.
//!
//! A connection finds its edge once, when it opens, by comparing its record with the keys that are there: nothing is allocated
//! and no count of a shared string is touched for an edge that is known. From then on it holds the [`Edge`] itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_model::{Reason, ServiceKey, SpiffeId, Workload};

use super::record::{ConnectionRecord, Direction};
use super::security::Security;

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Party {
    pub(super) workload: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) canonical_name: Arc<str>,
    pub(super) canonical_revision: Arc<str>,
    pub(super) cluster: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) principal: Option<SpiffeId>,
}

impl Party {
    fn of(workload: &Workload, principal: Option<&SpiffeId>) -> Self {
        Self {
            workload: workload.workload_name.clone(),
            namespace: workload.namespace.clone(),
            canonical_name: workload.canonical_name.clone(),
            canonical_revision: workload.canonical_revision.clone(),
            cluster: workload.cluster.clone(),
            region: workload.locality.region.clone(),
            zone: workload.locality.zone.clone(),
            principal: principal.cloned(),
        }
    }

    fn is(&self, workload: &Workload, principal: Option<&SpiffeId>) -> bool {
        self.workload == workload.workload_name
            && self.namespace == workload.namespace
            && self.canonical_name == workload.canonical_name
            && self.canonical_revision == workload.canonical_revision
            && self.cluster == workload.cluster
            && self.region == workload.locality.region
            && self.zone == workload.locality.zone
            && self.principal.as_ref() == principal
    }
}

fn same(party: Option<&Party>, workload: Option<&Arc<Workload>>, principal: Option<&SpiffeId>) -> bool {
    match (party, workload) {
        (Some(party), Some(workload)) => party.is(workload, principal),
        (None, None) => true,
        _ => false,
    }
}

/// The key of the counters of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    pub(super) direction: Direction,
    pub(super) source: Option<Party>,
    pub(super) destination: Option<Party>,
    pub(super) service: Option<(ServiceKey, Arc<str>)>,
    pub(super) security: Security,
    pub(super) reason: Option<Reason>,
}

/// One edge of one worker.
#[derive(Debug)]
pub struct Edge {
    pub(super) key: EdgeKey,
    pub(super) counts: EdgeCounts,
}

/// What one edge has seen. Only its worker counts; the scrape reads.
#[derive(Debug, Default)]
pub(super) struct EdgeCounts {
    pub(super) opened: Count,
    pub(super) closed: Count,
    pub(super) failed: Count,
    pub(super) sent: Count,
    pub(super) received: Count,
}

/// A counter with one writer: a load and a store in place of a locked addition.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl EdgeKey {
    /// The edge of a connection; a reason makes an edge of its own (Istio's `response_flags` label).
    pub(super) fn of(record: &ConnectionRecord, reason: Option<Reason>) -> Self {
        let source_identity = record.source_identity.as_ref();
        let destination_identity = record.destination_identity.as_ref();
        Self {
            direction: record.direction,
            source: record.source_workload.as_deref().map(|workload| Party::of(workload, source_identity)),
            destination: record
                .destination_workload
                .as_deref()
                .map(|workload| Party::of(workload, destination_identity)),
            service: record.service.as_deref().map(|service| (service.key.clone(), service.name.clone())),
            security: record.security,
            reason,
        }
    }

    /// Whether it is what [`Self::of`] would make. Shared strings that are the same are not compared.
    pub(super) fn is(&self, record: &ConnectionRecord, reason: Option<Reason>) -> bool {
        let service = match (&self.service, &record.service) {
            (Some((key, name)), Some(service)) => *key == service.key && *name == service.name,
            (None, None) => true,
            _ => false,
        };
        let source = (record.source_workload.as_ref(), record.source_identity.as_ref());
        let destination = (record.destination_workload.as_ref(), record.destination_identity.as_ref());
        service
            && (self.direction, self.security, self.reason) == (record.direction, record.security, reason)
            && same(self.source.as_ref(), source.0, source.1)
            && same(self.destination.as_ref(), destination.0, destination.1)
    }

    /// A number that edges of the same connections share: of some of the fields, enough to tell nearly all edges apart.
    pub(super) fn bucket(record: &ConnectionRecord, reason: Option<Reason>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let name = |workload: &Workload, hasher: &mut DefaultHasher| {
            workload.namespace.hash(hasher);
            workload.workload_name.hash(hasher);
        };
        record.source_workload.iter().for_each(|workload| name(workload, &mut hasher));
        hasher.write_u8(0xff);
        record.destination_workload.iter().for_each(|workload| name(workload, &mut hasher));
        record.service.iter().for_each(|service| service.key.hash(&mut hasher));
        (record.direction, record.security, reason).hash(&mut hasher);
        hasher.finish()
    }

    /// Where everything goes that does not fit into the table.
    pub(super) fn overflow(direction: Direction) -> Self {
        Self { direction, source: None, destination: None, service: None, security: Security::Plaintext, reason: None }
    }
}
