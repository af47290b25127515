//! Cuts the received bytes into frames, in place: whatever way the transport cuts them, the [`Sink`] sees the same frames.
//!
//! DATA is passed on in parts as it comes, so that a large frame is never gathered; every other frame is handed over whole, and is
//! gathered only when it straddles two reads. What may be gathered is bounded by kind.

use super::frame::{DEFAULT_MAX_FRAME, FrameHeader, HEADER_LENGTH, Kind, PADDED, PREFACE, Setting};
use super::violation::Violation;

/// Parameters in one SETTINGS frame. 64: there are ten in use on the internet.
const MOST_SETTINGS: u32 = 64;

/// What takes the frames.
pub(crate) trait Sink {
    /// A DATA frame begins; its payload, padding included, has `length` bytes.
    fn data_begins(&mut self, header: FrameHeader) -> Result<(), Violation>;

    /// Some of its bytes, in order.
    fn data(&mut self, part: &[u8]);

    /// The DATA frame is complete; what of its length did not come as data was padding.
    fn data_ends(&mut self, header: FrameHeader) -> Result<(), Violation>;

    /// A complete frame of any other kind.
    fn frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation>;
}

/// What the walker is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The client's first 24 bytes.
    Preface,
    /// A frame's nine.
    Header,
    /// The byte that says how much of a DATA frame is padding.
    PadLength(FrameHeader),
    /// DATA: `left` bytes of it, then `padding` ones, then what of it was no data.
    Data { header: FrameHeader, left: u32, padding: u32 },
    /// The whole payload of another frame.
    Payload(FrameHeader),
    /// A payload of which nobody wants the bytes.
    Skip(u32),
}

/// The state between two reads.
#[derive(Debug)]
pub(crate) struct Walker {
    step: Step,
    /// The part of a preface, header or payload that has come.
    rest: Vec<u8>,
    max_frame: u32,
    max_block: u32,
}

impl Default for Walker {
    fn default() -> Self {
        Self { step: Step::Header, rest: Vec::new(), max_frame: DEFAULT_MAX_FRAME, max_block: DEFAULT_MAX_FRAME }
    }
}

impl Walker {
    /// A walker that takes frames of `max_frame` bytes, header fragments of `max_block`, and a preface first if it is a server's.
    pub(crate) fn new(server: bool, max_frame: u32, max_block: u32) -> Self {
        let step = if server { Step::Preface } else { Step::Header };
        Self { step, rest: Vec::new(), max_frame, max_block }
    }

    /// Whether a server still waits for the client's preface.
    pub(crate) fn awaits_preface(&self) -> bool {
        self.step == Step::Preface
    }

    /// Takes all of `bytes`.
    pub(crate) fn walk(&mut self, mut bytes: &[u8], sink: &mut impl Sink) -> Result<(), Violation> {
        while !bytes.is_empty() {
            match self.step {
                Step::Preface => {
                    // Byte by byte, so that a stranger's first line is refused at once.
                    let expected = PREFACE[self.rest.len()];
                    if bytes[0] != expected {
                        return Err(Violation::PREFACE);
                    }
                    self.rest.push(bytes[0]);
                    bytes = &bytes[1..];
                    if self.rest.len() == PREFACE.len() {
                        self.rest = Vec::new();
                        self.step = Step::Header;
                    }
                }
                Step::Header => {
                    if let Some(header) = self.gather(&mut bytes, HEADER_LENGTH, |header| header.try_into().ok()) {
                        let header = header.ok_or(Violation::FRAME_SIZE)?;
                        self.begin(FrameHeader::decode(header), sink)?;
                    }
                }
                Step::PadLength(header) => {
                    let padding = u32::from(bytes[0]);
                    bytes = &bytes[1..];
                    let left = (header.length - 1).checked_sub(padding).ok_or(Violation::PADDING)?;
                    self.data(header, left, padding, sink)?;
                }
                Step::Data { header, left, padding } => {
                    let (part, rest) = bytes.split_at(bytes.len().min(left as usize));
                    if !part.is_empty() {
                        sink.data(part);
                    }
                    let skipped = rest.len().min(padding as usize);
                    bytes = &rest[skipped..];
                    self.data(header, left - part.len() as u32, padding - skipped as u32, sink)?;
                }
                Step::Payload(header) => {
                    let done = self.gather(&mut bytes, header.length as usize, |payload| sink.frame(header, payload));
                    if let Some(result) = done {
                        self.step = Step::Header;
                        result?;
                    }
                }
                Step::Skip(left) => {
                    let skipped = bytes.len().min(left as usize);
                    bytes = &bytes[skipped..];
                    let left = left - skipped as u32;
                    self.step = if left == 0 { Step::Header } else { Step::Skip(left) };
                }
            }
        }
        Ok(())
    }

    /// Calls `use_it` with the next `length` bytes when all of them are here; they are copied only if they came in pieces.
    fn gather<R>(&mut self, bytes: &mut &[u8], length: usize, use_it: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.rest.is_empty()
            && let Some((whole, after)) = bytes.split_at_checked(length)
        {
            *bytes = after;
            return Some(use_it(whole));
        }
        let (piece, after) = bytes.split_at(bytes.len().min(length - self.rest.len()));
        self.rest.extend_from_slice(piece);
        *bytes = after;
        if self.rest.len() < length {
            return None;
        }
        Some(use_it(&std::mem::take(&mut self.rest)))
    }

    fn begin(&mut self, header: FrameHeader, sink: &mut impl Sink) -> Result<(), Violation> {
        if header.length > self.max_frame {
            return Err(Violation::FRAME_SIZE);
        }
        let fixed = match header.kind {
            Kind::Data => {
                sink.data_begins(header)?;
                if !header.has(PADDED) {
                    return self.data(header, header.length, 0, sink);
                }
                if header.length == 0 {
                    return Err(Violation::FRAME_SIZE);
                }
                self.step = Step::PadLength(header);
                return Ok(());
            }
            Kind::Headers | Kind::Continuation | Kind::PushPromise if header.length > self.max_block => {
                return Err(Violation::HEADER_BOMB);
            }
            Kind::Settings if header.length > MOST_SETTINGS * Setting::LENGTH as u32 => {
                return Err(Violation::SETTINGS_FLOOD);
            }
            // Debug data is text for people; nobody needs more of it.
            Kind::GoAway if header.length > DEFAULT_MAX_FRAME => return Err(Violation::FRAME_SIZE),
            Kind::Headers | Kind::Continuation | Kind::PushPromise | Kind::Settings | Kind::GoAway => None,
            Kind::Priority => Some(5),
            Kind::RstStream | Kind::WindowUpdate => Some(4),
            Kind::Ping => Some(8),
            Kind::Unknown(_) => {
                // Counted, never gathered.
                sink.frame(header, &[])?;
                self.step = if header.length == 0 { Step::Header } else { Step::Skip(header.length) };
                return Ok(());
            }
        };
        if fixed.is_some_and(|length| length != header.length) {
            return Err(Violation::FRAME_SIZE);
        }
        if header.length == 0 {
            self.step = Step::Header;
            return sink.frame(header, &[]);
        }
        self.step = Step::Payload(header);
        Ok(())
    }

    /// Goes on in a DATA frame, or ends it.
    fn data(&mut self, header: FrameHeader, left: u32, padding: u32, sink: &mut impl Sink) -> Result<(), Violation> {
        if left == 0 && padding == 0 {
            self.step = Step::Header;
            return sink.data_ends(header);
        }
        self.step = Step::Data { header, left, padding };
        Ok(())
    }
}
