//! What the driver of a connection knows and its streams must learn, and how the library's errors read in our words.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{ConnectionEnd, ResetCode, StreamError};

/// Shared by a connection's driver and its streams.
#[derive(Debug, Default)]
pub(crate) struct ConnectionStatus {
    /// The driver gave up because no PING was answered. Streams then fail as timed out instead of as lost.
    ping_timeout: AtomicBool,
}

impl ConnectionStatus {
    pub(crate) fn set_ping_timeout(&self) {
        self.ping_timeout.store(true, Ordering::Relaxed);
    }

    /// Reads an error of the library as an error of one stream.
    pub(crate) fn stream_error(&self, error: &h2::Error) -> StreamError {
        match error.reason() {
            Some(reason) if error.is_reset() => StreamError::Reset(ResetCode(reason.into())),
            Some(reason) if error.is_go_away() && error.is_remote() => StreamError::GoneAway(ResetCode(reason.into())),
            _ => self.lost(),
        }
    }

    /// The connection went away under a stream that was open.
    pub(crate) fn lost(&self) -> StreamError {
        if self.ping_timeout.load(Ordering::Relaxed) { StreamError::PingTimeout } else { StreamError::ConnectionLost }
    }
}

/// Reads the library's last word on a connection.
pub(crate) fn connection_end(result: Result<(), h2::Error>) -> ConnectionEnd {
    match result {
        Ok(()) => ConnectionEnd::Closed,
        Err(error) => match error.reason() {
            Some(h2::Reason::NO_ERROR) => ConnectionEnd::Closed,
            Some(reason) => ConnectionEnd::Protocol(ResetCode(reason.into())),
            None => ConnectionEnd::Io(error.to_string()),
        },
    }
}
