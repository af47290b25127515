//! An edge of the mesh: who to whom, how, and how it ended. The key of every counter.
//!
//! Made of shared strings, so that a connection of a known edge allocates nothing.

use std::sync::Arc;

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

impl EdgeKey {
    /// The edge of a connection; a reason makes an edge of its own (Istio's `response_flags` label).
    #[must_use]
    pub fn of(record: &ConnectionRecord) -> Self {
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
            reason: record.reason,
        }
    }

    /// Where everything goes that does not fit into the table.
    pub(super) fn overflow(direction: Direction) -> Self {
        Self { direction, source: None, destination: None, service: None, security: Security::Plaintext, reason: None }
    }
}
