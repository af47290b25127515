//! Follows the TLS records of one direction of a TCP flow, by sequence number. Pure.
//!
//! A record is `type(1) version(2) length(2) fragment(length)` (RFC 8446 section 5.1): type 20 to 24, version 03 0x,
//! length at most 2^14 + 256. Anything else at the place of a header is not TLS.

use std::collections::BTreeMap;

/// Segments kept while an earlier one is missing, bytes: packets overtake each other between processors, but not by
/// more than a window's part. Beyond it the missing one was not captured.
const OVERTAKEN: usize = 256 * 1024;

/// Longest fragment of a protected record, bytes (RFC 8446 section 5.2).
const LONGEST: u16 = 16_384 + 256;

/// Where a direction stands.
#[derive(Clone, Debug, Default)]
pub struct RecordTrack {
    /// Sequence number of the SYN.
    start: Option<u32>,
    /// Sequence number of the next payload byte; `None` until the SYN was seen.
    next: Option<u32>,
    /// Bytes of the current fragment still to come.
    remaining: usize,
    header: Vec<u8>,
    /// Segments that came before their turn, by sequence number.
    early: BTreeMap<u32, Vec<u8>>,
    violated: bool,
    lost: bool,
}

impl RecordTrack {
    /// A SYN was seen: the stream begins behind it.
    pub fn start(&mut self, sequence: u32) {
        let violated = self.violated;
        *self = Self { start: Some(sequence), next: Some(sequence.wrapping_add(1)), violated, ..Self::default() };
    }

    /// Is a SYN of this number the beginning of another stream (not a repetition of ours)?
    #[must_use]
    pub fn is_new_start(&self, sequence: u32) -> bool {
        self.start != Some(sequence)
    }

    /// True: bytes were seen that are not TLS.
    #[must_use]
    pub fn violated(&self) -> bool {
        self.violated
    }

    /// True: the stream could not be followed (its beginning or a segment was not captured).
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Takes a segment. Repeated bytes are skipped; an early segment waits for its turn; a gap that stays ends the
    /// tracking.
    pub fn segment(&mut self, sequence: u32, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        if self.next.is_none() {
            self.lost = true;
            return;
        }
        if !self.take(sequence, payload) {
            self.early.insert(sequence, payload.to_vec());
            if self.early.values().map(Vec::len).sum::<usize>() > OVERTAKEN {
                *self = Self { violated: self.violated, start: self.start, lost: true, ..Self::default() };
            }
            return;
        }
        let mut waiting = std::mem::take(&mut self.early);
        loop {
            let before = waiting.len();
            waiting.retain(|sequence, payload| !self.take(*sequence, payload));
            if waiting.len() == before {
                break;
            }
        }
        self.early = waiting;
    }

    /// False: it is not its turn yet.
    fn take(&mut self, sequence: u32, payload: &[u8]) -> bool {
        let Some(next) = self.next else { return true };
        // Difference on the circle of sequence numbers (RFC 9293 section 3.4): negative is a gap.
        let Ok(repeated) = usize::try_from(next.wrapping_sub(sequence).cast_signed()) else { return false };
        if let Some(fresh) = payload.get(repeated..).filter(|fresh| !fresh.is_empty()) {
            let length = u32::try_from(fresh.len()).expect("a segment is shorter than 64 KiB");
            self.next = Some(next.wrapping_add(length));
            self.bytes(fresh);
        }
        true
    }

    fn bytes(&mut self, mut fresh: &[u8]) {
        while !fresh.is_empty() && !self.violated {
            if self.remaining > 0 {
                let taken = self.remaining.min(fresh.len());
                self.remaining -= taken;
                fresh = &fresh[taken..];
                continue;
            }
            self.header.push(fresh[0]);
            fresh = &fresh[1..];
            self.violated = !plausible(&self.header);
            if self.header.len() == 5 {
                self.remaining = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                self.header.clear();
            }
        }
    }
}

/// Can these first bytes of a header be a TLS record's?
fn plausible(header: &[u8]) -> bool {
    let length = || u16::from_be_bytes([header[3], header[4]]);
    header.first().is_none_or(|kind| (20..=24).contains(kind))
        && header.get(1).is_none_or(|major| *major == 3)
        && header.get(2).is_none_or(|minor| *minor <= 4)
        && (header.len() < 5 || length() <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: u8) -> Vec<u8> {
        let mut bytes = vec![23, 3, 3, 0, length];
        bytes.extend(vec![b'x'; usize::from(length)]);
        bytes
    }

    #[test]
    fn follows_records_over_segments_wrap_and_repetition() {
        let stream: Vec<u8> = [record(7), record(0), record(200)].concat();
        for step in 1..stream.len() {
            let mut track = RecordTrack::default();
            let mut sequence = u32::MAX - 9;
            track.start(sequence.wrapping_sub(1));
            for part in stream.chunks(step) {
                track.segment(sequence, part);
                track.segment(sequence, part);
                sequence = sequence.wrapping_add(u32::try_from(part.len()).unwrap());
            }
            assert!(!track.violated() && !track.lost(), "step {step}");
        }
    }

    #[test]
    fn early_segments_wait_for_their_turn() {
        let stream: Vec<u8> = [record(7), record(200)].concat();
        for order in [[0, 2, 1], [2, 1, 0], [1, 0, 2]] {
            let mut track = RecordTrack::default();
            track.start(u32::MAX - 1);
            for part in order {
                let range = part * 70..stream.len().min(part * 70 + 80);
                track.segment(u32::MAX.wrapping_add(u32::try_from(range.start).unwrap()), &stream[range]);
            }
            assert_eq!(track.next, Some(u32::MAX.wrapping_add(217)));
            assert!(!track.violated() && !track.lost() && track.early.is_empty(), "{order:?}");
        }
    }

    #[test]
    fn tells_plaintext_and_gaps() {
        for (text, violated) in
            [(&b"GET / HTTP/1.1"[..], true), (b"\x16\x03\x01\x00\x10abc", false), (b"\x16\x04", true)]
        {
            let mut track = RecordTrack::default();
            track.start(99);
            track.segment(100, text);
            assert_eq!(track.violated(), violated, "{text:?}");
        }
        // Plaintext behind a whole record is found too.
        let mut track = RecordTrack::default();
        track.start(99);
        track.segment(100, &[record(3), b"HELO".to_vec()].concat());
        assert!(track.violated());
        let mut track = RecordTrack::default();
        track.start(99);
        track.segment(101, b"x");
        assert!(!track.lost(), "it may only be early");
        for part in 0..5 {
            track.segment(200 + part * 60_000, &[b'x'; 60_000]);
        }
        assert!(track.lost());
    }
}
