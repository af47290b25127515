//! What `weft certs` shows of one certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use weft_model::SpiffeId;
use weft_model::view::CertificateRow;

use crate::certificate::Credentials;
use crate::schedule::Status;

/// The row of one identity: what the schedule plans and what is in use.
pub(super) fn row(
    identity: &SpiffeId,
    status: &Status,
    credentials: Option<&Credentials>,
    now: SystemTime,
) -> CertificateRow {
    let state = match credentials {
        None => "waiting",
        Some(credentials) if credentials.validity().is_expired(now) => "expired",
        Some(_) if status.in_flight || status.failures > 0 => "renewing",
        Some(_) => "valid",
    };
    CertificateRow {
        identity: identity.to_string(),
        state: state.to_owned(),
        serial: credentials.map_or_else(String::new, |credentials| credentials.serial().to_owned()),
        not_before: credentials.map_or(0, |credentials| seconds(credentials.validity().not_before)),
        not_after: credentials.map_or(0, |credentials| seconds(credentials.validity().not_after)),
        next_request: seconds(now + status.next_request),
        users: status.users,
        last_error: status.last_error.clone(),
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
