//! A step of the data path that did not succeed: the code for everybody and the words for the log.

use std::fmt;

use weft_model::Reason;

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub reason: Reason,
    /// What the system or the peer said.
    pub detail: Option<String>,
}

impl Failure {
    /// With the words of an error.
    pub fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self { reason, detail: Some(detail.to_string()) }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}
