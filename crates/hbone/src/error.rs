//! How a stream or a connection can fail, in words of HTTP/2 but without a type of any HTTP/2 library.
//!
//! Errors of one operation stand beside it (`client::OpenError`, `pool::PoolError`); here are only the two that
//! every module shares.

use std::fmt;
use std::io;

/// An HTTP/2 error code (RFC 9113 section 7), as carried by RST_STREAM and GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResetCode(pub u32);

impl ResetCode {
    /// The stream is complete; what is still on its way is not wanted.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// This side is at fault.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More bytes than the window allows, or a window beyond 2^31 - 1.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// A frame for a half of a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of a wrong or too large size.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The peer refused the stream before doing anything with it: safe to try again elsewhere.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is no longer needed; also what a dropped [`crate::Tunnel`] sends.
    pub const CANCEL: Self = Self(0x8);
    /// A header block that cannot be decoded: the two ends no longer share one HPACK state.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The TCP connection behind a CONNECT was reset or closed abnormally (RFC 9113 section 8.5): our RST.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer sends more than is good for us.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            other => return write!(f, "code {other:#x}"),
        };
        f.write_str(name)
    }
}

/// Why a stream ended before its orderly end. An orderly end (END_STREAM) is never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// RST_STREAM arrived, or this end sent one.
    #[error("stream reset: {0}")]
    Reset(ResetCode),
    /// The peer said GOAWAY and did not process this stream: safe to try again on a new connection.
    #[error("peer is going away: {0}")]
    GoneAway(ResetCode),
    /// The connection broke under the stream, or one end closed it over a protocol error.
    #[error("connection lost")]
    ConnectionLost,
    /// The peer answered no PING in time.
    #[error("peer answered no PING")]
    PingTimeout,
    /// This end had already finished or reset the stream.
    #[error("stream already ended by this side")]
    Ended,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::GoneAway(_) | StreamError::ConnectionLost => {
                io::ErrorKind::ConnectionReset
            }
            StreamError::PingTimeout => io::ErrorKind::TimedOut,
            StreamError::Ended => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Closed in order: no stream was open any more, or both ends agreed by GOAWAY.
    Closed,
    /// The peer answered no PING in time; open streams failed with [`StreamError::PingTimeout`].
    PingTimeout,
    /// This side cut it (`abort`).
    Aborted,
    /// The peer closed it with an error code.
    Protocol(ResetCode),
    /// The peer broke the protocol or asked for too much; this side said GOAWAY with the code.
    Violated {
        /// What the GOAWAY said.
        code: ResetCode,
        /// What the peer did, as a stable word (`http2::Violation`).
        reason: &'static str,
    },
    /// The stream below failed; the text of its error.
    Io(String),
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed in order"),
            Self::PingTimeout => f.write_str("no answer to PING"),
            Self::Aborted => f.write_str("cut by this side"),
            Self::Protocol(code) => write!(f, "HTTP/2 error {code}"),
            Self::Violated { code, reason } => write!(f, "the peer broke the rules: {reason} ({code})"),
            Self::Io(text) => write!(f, "transport failed: {text}"),
        }
    }
}
