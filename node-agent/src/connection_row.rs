//! A connection as `weft connections` shows it.

use weft_model::Workload;
use weft_model::view::ConnectionRow;

use crate::telemetry::ConnectionRecord;

/// The row of a connection, live or refused.
#[must_use]
pub fn row_of(record: &ConnectionRecord) -> ConnectionRow {
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
        age_ms: u64::try_from(record.opened.elapsed().as_millis()).unwrap_or(u64::MAX),
        policy: record.policy.as_ref().map(ToString::to_string),
        reason: record.reason.map(|reason| reason.code().to_owned()),
        detail: record.detail.clone(),
    }
}
