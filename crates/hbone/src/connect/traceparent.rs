//! `traceparent`: W3C trace context, version 00. The receiver keeps the one that came, or makes one.

use std::fmt;
use std::str::FromStr;

/// Length of the text form: `00-` 32 `-` 16 `-` 2 hexadecimal digits.
const TEXT_LENGTH: usize = 55;

/// A position in a trace. Neither number is ever 0 (the specification calls such a header invalid).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    trace: u128,
    parent: u64,
    flags: u8,
}

/// The text is no version 00 traceparent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version 00 traceparent")]
pub struct TraceparentError;

impl Traceparent {
    /// A new random trace, not sampled (flags 00, as ztunnel).
    #[must_use]
    pub fn random() -> Self {
        // 0 is forbidden and as likely as any other number: the lowest bit is not worth a loop.
        Self { trace: rand::random::<u128>() | 1, parent: rand::random::<u64>() | 1, flags: 0 }
    }

    /// The trace id, never 0.
    #[must_use]
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// The parent span id, never 0.
    #[must_use]
    pub fn parent(&self) -> u64 {
        self.parent
    }

    /// The flag bits; bit 0 is "sampled".
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

impl FromStr for Traceparent {
    type Err = TraceparentError;

    fn from_str(text: &str) -> Result<Self, TraceparentError> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != TEXT_LENGTH || !text.bytes().all(|byte| byte == b'-' || lower_hex(byte)) {
            return Err(TraceparentError);
        }
        let mut parts = text.split('-');
        let mut part = |length: usize| parts.next().filter(|part| part.len() == length).ok_or(TraceparentError);
        let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let trace = u128::from_str_radix(trace, 16).map_err(|_| TraceparentError)?;
        let parent = u64::from_str_radix(parent, 16).map_err(|_| TraceparentError)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| TraceparentError)?;
        if version != "00" || trace == 0 || parent == 0 {
            return Err(TraceparentError);
        }
        Ok(Self { trace, parent, flags })
    }
}
