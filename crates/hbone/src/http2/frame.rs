//! Frames as bytes (RFC 9113 sections 4 and 6): the header, and the payloads of fixed form.

use crate::error::ResetCode;

use super::violation::Violation;

/// Bytes of a frame's header.
pub const HEADER_LENGTH: usize = 9;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest payload that every peer takes (RFC 9113 section 4.2).
pub const DEFAULT_MAX_FRAME: u32 = 16_384;

/// Largest payload that a peer may announce (same section).
pub const LARGEST_MAX_FRAME: u32 = (1 << 24) - 1;

/// A window before SETTINGS say otherwise (RFC 9113 section 6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;

/// The largest window (RFC 9113 section 6.9.1), and the largest stream identifier.
pub const LARGEST_31: u32 = (1 << 31) - 1;

/// END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// ACK of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// PADDED of DATA and HEADERS.
pub const PADDED: u8 = 0x8;
/// PRIORITY fields in HEADERS.
pub const PRIORITY_FIELDS: u8 = 0x20;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a stream.
    Data,
    /// The head of a request or an answer, or trailers.
    Headers,
    /// Outdated; ignored.
    Priority,
    /// The abrupt end of a stream.
    RstStream,
    /// What the peer wants us to keep to.
    Settings,
    /// Never allowed here.
    PushPromise,
    /// Are you there.
    Ping,
    /// No new streams.
    GoAway,
    /// More window.
    WindowUpdate,
    /// More of a header block.
    Continuation,
    /// Anything else: ignored.
    Unknown(u8),
}

impl From<u8> for Kind {
    fn from(code: u8) -> Self {
        match code {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::RstStream,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Data => 0x0,
            Kind::Headers => 0x1,
            Kind::Priority => 0x2,
            Kind::RstStream => 0x3,
            Kind::Settings => 0x4,
            Kind::PushPromise => 0x5,
            Kind::Ping => 0x6,
            Kind::GoAway => 0x7,
            Kind::WindowUpdate => 0x8,
            Kind::Continuation => 0x9,
            Kind::Unknown(other) => other,
        }
    }
}

/// The nine bytes before each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the payload, below 2^24.
    pub length: u32,
    /// What it is for.
    pub kind: Kind,
    /// Flags, by kind.
    pub flags: u8,
    /// The stream, 0 for the connection; below 2^31.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads one. The reserved bit is ignored, as it must be.
    #[must_use]
    pub fn decode(bytes: [u8; HEADER_LENGTH]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::from(kind),
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & LARGEST_31,
        }
    }

    /// Writes one.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_LENGTH] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = (self.stream & LARGEST_31).to_be_bytes();
        [a, b, c, self.kind.into(), self.flags, d, e, f, g]
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One parameter of a SETTINGS frame (RFC 9113 section 6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// SETTINGS_ENABLE_PUSH.
    EnablePush(bool),
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    MaxConcurrentStreams(u32),
    /// SETTINGS_INITIAL_WINDOW_SIZE, at most 2^31 - 1.
    InitialWindow(u32),
    /// SETTINGS_MAX_FRAME_SIZE, 16,384 to 2^24 - 1.
    MaxFrame(u32),
    /// SETTINGS_MAX_HEADER_LIST_SIZE.
    MaxHeaderList(u32),
    /// One that changes nothing for us: the size of an HPACK table that our encoder does not use, or an unknown one.
    Other(u16, u32),
}

impl Setting {
    /// Bytes on the wire.
    pub const LENGTH: usize = 6;

    /// Reads one.
    ///
    /// # Errors
    /// A value that the parameter cannot have.
    pub fn decode(bytes: [u8; Self::LENGTH]) -> Result<Self, Violation> {
        let [i, j, a, b, c, d] = bytes;
        let value = u32::from_be_bytes([a, b, c, d]);
        match (u16::from_be_bytes([i, j]), value) {
            (0x2, 0 | 1) => Ok(Self::EnablePush(value == 1)),
            (0x3, _) => Ok(Self::MaxConcurrentStreams(value)),
            (0x4, 0..=LARGEST_31) => Ok(Self::InitialWindow(value)),
            (0x4, _) => Err(Violation::WINDOW_OVERFLOW),
            (0x5, DEFAULT_MAX_FRAME..=LARGEST_MAX_FRAME) => Ok(Self::MaxFrame(value)),
            (0x6, _) => Ok(Self::MaxHeaderList(value)),
            (0x2 | 0x5, _) => Err(Violation::SETTING),
            (other, _) => Ok(Self::Other(other, value)),
        }
    }

    /// Writes one.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let (identifier, value) = match self {
            Self::EnablePush(push) => (0x2, u32::from(push)),
            Self::MaxConcurrentStreams(value) => (0x3, value),
            Self::InitialWindow(value) => (0x4, value),
            Self::MaxFrame(value) => (0x5, value),
            Self::MaxHeaderList(value) => (0x6, value),
            Self::Other(identifier, value) => (identifier, value),
        };
        let ([i, j], [a, b, c, d]) = (identifier.to_be_bytes(), value.to_be_bytes());
        [i, j, a, b, c, d]
    }

    /// Reads all of a SETTINGS payload.
    ///
    /// # Errors
    /// A length that is no multiple of six, or a bad value.
    pub fn decode_all(payload: &[u8]) -> Result<impl Iterator<Item = Result<Self, Violation>>, Violation> {
        let (settings, rest) = payload.as_chunks::<{ Self::LENGTH }>();
        if !rest.is_empty() {
            return Err(Violation::FRAME_SIZE);
        }
        Ok(settings.iter().copied().map(Self::decode))
    }
}

/// Reads the payload of RST_STREAM or WINDOW_UPDATE.
///
/// # Errors
/// Another length than four.
pub fn decode_word(payload: &[u8]) -> Result<u32, Violation> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Violation::FRAME_SIZE)
}

/// The payload of GOAWAY without its debug data: the last stream that was or will be worked on, and why.
///
/// # Errors
/// A payload that is too short.
pub fn decode_goaway(payload: &[u8]) -> Result<(u32, ResetCode), Violation> {
    let (last, rest) = payload.split_first_chunk::<4>().ok_or(Violation::FRAME_SIZE)?;
    let (code, _debug) = rest.split_first_chunk::<4>().ok_or(Violation::FRAME_SIZE)?;
    Ok((u32::from_be_bytes(*last) & LARGEST_31, ResetCode(u32::from_be_bytes(*code))))
}

/// Writes the payload that [`decode_goaway`] reads.
#[must_use]
pub fn encode_goaway(last: u32, code: ResetCode) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = ((last & LARGEST_31).to_be_bytes(), code.0.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// The header block fragment in a HEADERS payload: without padding and PRIORITY fields.
///
/// # Errors
/// Padding or fields longer than the payload.
pub fn strip_headers(flags: u8, payload: &[u8]) -> Result<&[u8], Violation> {
    let mut fragment = payload;
    if flags & PADDED != 0 {
        let (&padding, rest) = fragment.split_first().ok_or(Violation::FRAME_SIZE)?;
        let kept = rest.len().checked_sub(usize::from(padding)).ok_or(Violation::PADDING)?;
        fragment = &rest[..kept];
    }
    if flags & PRIORITY_FIELDS != 0 {
        fragment = fragment.get(5..).ok_or(Violation::FRAME_SIZE)?;
    }
    Ok(fragment)
}

#[cfg(test)]
mod tests;
