//! What was refused lately, for `weft connections --denied`: the last few, kept by the log writer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use weft_model::Workload;
use weft_model::view::ConnectionRow;

use super::record::ConnectionRecord;

/// How many are kept: enough to find the one that a person just saw, little enough to print.
const KEPT: usize = 256;

/// The last refusals. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    kept: Arc<Mutex<VecDeque<(Instant, ConnectionRow)>>>,
}

impl Refusals {
    /// Notes a connection if it was refused.
    pub(super) fn note(&self, record: &ConnectionRecord) {
        if record.reason.is_none() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), row(record)));
    }

    /// The list, oldest first; ages are as of now.
    #[must_use]
    pub fn rows(&self) -> Vec<ConnectionRow> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(when, row)| ConnectionRow { age_ms: milliseconds(*when), ..row.clone() }).collect()
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A connection as a row.
#[must_use]
pub fn row(record: &ConnectionRecord) -> ConnectionRow {
    let name = |workload: &Workload| format!("{}/{}", workload.namespace, workload.name);
    ConnectionRow {
        direction: record.direction.word().to_owned(),
        source: record.source.to_string(),
        source_workload: record.source_workload.as_deref().map(name),
        source_identity: record.source_identity.as_ref().map(ToString::to_string),
        destination: record.destination.to_string(),
        destination_workload: record.destination_workload.as_deref().map(name),
        service: record.service.as_deref().map(|service| service.key.hostname.to_string()),
        security: record.security.word().to_owned(),
        sent: record.sent,
        received: record.received,
        age_ms: milliseconds(record.opened),
        policy: record.policy.as_ref().map(ToString::to_string),
        reason: record.reason.map(|reason| reason.code().to_owned()),
        detail: record.detail.as_deref().map(str::to_owned),
    }
}
