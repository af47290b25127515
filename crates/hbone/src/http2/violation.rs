//! What a peer can do that ends its connection: each offence with the code of our GOAWAY and a stable word for the log.

use crate::error::ResetCode;

/// An offence against the connection as a whole. Offences against one stream only reset that stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub struct Violation {
    /// What GOAWAY says.
    pub code: ResetCode,
    /// What happened, in a word that does not change.
    pub reason: &'static str,
}

const fn violation(code: ResetCode, reason: &'static str) -> Violation {
    Violation { code, reason }
}

impl Violation {
    /// The connection does not begin as HTTP/2 does.
    pub const PREFACE: Self = violation(ResetCode::PROTOCOL_ERROR, "no-http2-preface");
    /// A frame where none of its kind may be, or on a stream that it cannot be for.
    pub const UNEXPECTED_FRAME: Self = violation(ResetCode::PROTOCOL_ERROR, "unexpected-frame");
    /// A frame beyond the announced size, or of a size that its kind does not have.
    pub const FRAME_SIZE: Self = violation(ResetCode::FRAME_SIZE_ERROR, "frame-size");
    /// Padding longer than its frame.
    pub const PADDING: Self = violation(ResetCode::PROTOCOL_ERROR, "padding");
    /// A setting with a value that it cannot have.
    pub const SETTING: Self = violation(ResetCode::PROTOCOL_ERROR, "bad-setting");
    /// An increment of nothing for the connection's window.
    pub const ZERO_INCREMENT: Self = violation(ResetCode::PROTOCOL_ERROR, "zero-window-increment");
    /// A window beyond 2^31 - 1.
    pub const WINDOW_OVERFLOW: Self = violation(ResetCode::FLOW_CONTROL_ERROR, "window-overflow");
    /// More DATA than the window of the connection, or of a stream that was reset, allows.
    pub const WINDOW_EXCEEDED: Self = violation(ResetCode::FLOW_CONTROL_ERROR, "window-exceeded");
    /// A header block that HPACK cannot decode.
    pub const HEADER_BLOCK: Self = violation(ResetCode::COMPRESSION_ERROR, "header-block");
    /// A header block larger than the list that was announced could be.
    pub const HEADER_BOMB: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "header-bomb");
    /// One header block in too many frames.
    pub const CONTINUATION_FLOOD: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "continuation-flood");
    /// Too many requests withdrawn before they were answered.
    pub const RAPID_RESET: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "rapid-reset");
    /// Too many streams beyond the announced number.
    pub const STREAM_FLOOD: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "stream-flood");
    /// Too many PING.
    pub const PING_FLOOD: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "ping-flood");
    /// Too many SETTINGS, or too many in one frame.
    pub const SETTINGS_FLOOD: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "settings-flood");
    /// Too many frames that carry nothing.
    pub const EMPTY_FRAMES: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "empty-frames");
    /// Too many WINDOW_UPDATE of next to nothing.
    pub const WINDOW_FLOOD: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "window-update-flood");
    /// Too many frames for streams that ended long ago.
    pub const LATE_FRAMES: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "late-frames");
    /// Too many frames that mean nothing to this side (PRIORITY, unknown kinds).
    pub const IGNORED_FRAMES: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "ignored-frames");
    /// The peer causes answers and does not read them.
    pub const ANSWERS_UNREAD: Self = violation(ResetCode::ENHANCE_YOUR_CALM, "answers-unread");
}
