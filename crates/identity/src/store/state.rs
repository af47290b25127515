//! What `weft certs` shows of one certificate.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use weft_model::SpiffeId;

use crate::certificate::Credentials;
use crate::schedule::Status;

/// One identity's certificate, for people and for the `weft` command. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateState {
    /// Whose.
    pub identity: SpiffeId,
    /// `valid`, `expired`, or `missing` when there is none yet.
    pub state: String,
    /// Pods of this node that use it.
    pub users: usize,
    /// Lower case hexadecimal, of the certificate in use.
    pub serial: Option<String>,
    /// First moment of validity.
    pub not_before: Option<String>,
    /// Last moment of validity.
    pub not_after: Option<String>,
    /// When the CA is asked next; none while a request is under way.
    pub next_request: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
    /// Of the last request, if it failed.
    pub last_error: Option<String>,
}

impl CertificateState {
    pub(super) fn new(identity: SpiffeId, status: &Status, credentials: Option<&Credentials>, now: SystemTime) -> Self {
        let state = match credentials {
            None => "missing",
            Some(credentials) if credentials.validity().is_expired(now) => "expired",
            Some(_) => "valid",
        };
        let text = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        Self {
            identity,
            state: state.to_owned(),
            users: status.users,
            serial: credentials.map(|credentials| credentials.serial().to_owned()),
            not_before: credentials.map(|credentials| text(credentials.validity().not_before)),
            not_after: credentials.map(|credentials| text(credentials.validity().not_after)),
            next_request: (!status.in_flight).then(|| text(now + status.next_request)),
            failures: status.failures,
            last_error: status.last_error.clone(),
        }
    }
}
