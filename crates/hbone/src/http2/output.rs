//! What waits for the transport: frames one behind the other in one buffer, so that all of a turn leave in one write.

use std::io::{self, IoSliceMut};
use std::task::Poll;

use super::frame::{END_STREAM, FrameHeader, HEADER_LENGTH, Kind};
use super::lent;

/// Payload of a DATA frame at most: with its header it fills one TLS record of 16,384 bytes.
pub(crate) const MOST_DATA: usize = 16_384 - HEADER_LENGTH;

/// Frames that one read from a source fills at most (same place).
pub(crate) const MOST_SLOTS: usize = 16;

/// An open frame with less room than this is not worth a slice of its own.
const SMALLEST_SLOT: usize = 512;

/// The last frame, as long as it is DATA and nothing of it has left: more of its stream may join it.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    at: usize,
    length: usize,
    stream: u32,
}

/// The output of one connection.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Initialised to its end, so that a source can be read straight into it; `start..end` waits.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    open: Option<OpenFrame>,
    /// All that ever left.
    left: u64,
}

impl Output {
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// A mark for what has been put in so far.
    pub(crate) fn position(&self) -> u64 {
        self.left + self.len() as u64
    }

    /// Whether all up to a mark has left.
    pub(crate) fn has_left(&self, position: u64) -> bool {
        self.left >= position
    }

    /// The transport took `count` bytes.
    pub(crate) fn sent(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        self.left += count as u64;
        if self.open.is_some_and(|open| open.at < self.start) {
            self.open = None;
        }
        self.settle();
    }

    /// An empty output owns no buffer.
    fn settle(&mut self) {
        if self.is_empty() {
            lent::return_output(std::mem::take(&mut self.buffer));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Bytes that are no frame: the preface.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.append(bytes);
        self.open = None;
    }

    /// A frame of any kind but DATA.
    pub(crate) fn frame(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let length = payload.len() as u32;
        self.append(&FrameHeader { length, kind, flags, stream }.encode());
        self.append(payload);
        self.open = None;
    }

    /// DATA, in frames of at most `piece`; joins what waits of the same stream.
    pub(crate) fn data(&mut self, stream: u32, mut data: &[u8], piece: usize) {
        while !data.is_empty() {
            self.reserve(HEADER_LENGTH + data.len().min(piece));
            let open = match self.open {
                Some(open) if open.stream == stream && open.length < piece => open,
                _ => self.open_frame(stream),
            };
            let (now, later) = data.split_at(data.len().min(piece - open.length));
            self.append(now);
            self.lengthen(open, now.len());
            data = later;
        }
    }

    /// END_STREAM: on the last frame if that is still here, else on an empty one.
    pub(crate) fn end_stream(&mut self, stream: u32) {
        self.reserve(HEADER_LENGTH);
        let open = match self.open {
            Some(open) if open.stream == stream => open,
            _ => self.open_frame(stream),
        };
        self.write_header(open, END_STREAM);
        self.open = None;
    }

    /// Lets `read` fill DATA frames of at most `piece` bytes, `room` in all, in place; what it reads is then in them.
    pub(crate) fn fill(
        &mut self,
        stream: u32,
        room: usize,
        piece: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.reserve(room + room.div_ceil(piece).min(MOST_SLOTS) * HEADER_LENGTH);
        let open = self.open.filter(|open| open.stream == stream && piece.saturating_sub(open.length) >= SMALLEST_SLOT);
        let joined = open.map_or(0, |open| room.min(piece - open.length));
        let frames = (room - joined).div_ceil(piece).min(MOST_SLOTS);
        let room = room.min(joined + frames * piece);
        let mut slots: [IoSliceMut<'_>; MOST_SLOTS + 1] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let (mut count, mut left) = (0, room - joined);
        let (first, mut spare) = self.buffer[self.end..].split_at_mut(joined);
        if joined > 0 {
            slots[0] = IoSliceMut::new(first);
            count = 1;
        }
        while left > 0 && count < slots.len() {
            let (slot, rest) = spare[HEADER_LENGTH..].split_at_mut(left.min(piece));
            left -= slot.len();
            slots[count] = IoSliceMut::new(slot);
            spare = rest;
            count += 1;
        }
        let read = read(&mut slots[..count]);
        if let Poll::Ready(Ok(mut filled)) = read {
            if let Some(open) = open {
                let now = filled.min(joined);
                self.end += now;
                self.lengthen(open, now);
                filled -= now;
            }
            while filled > 0 {
                let now = filled.min(piece);
                let open = OpenFrame { at: self.end, length: 0, stream };
                self.end += HEADER_LENGTH + now;
                self.lengthen(open, now);
                filled -= now;
            }
        }
        self.settle();
        read
    }

    /// A new frame; there is place for its header.
    fn open_frame(&mut self, stream: u32) -> OpenFrame {
        let open = OpenFrame { at: self.end, length: 0, stream };
        self.append(&[0; HEADER_LENGTH]);
        open
    }

    fn lengthen(&mut self, mut open: OpenFrame, by: usize) {
        open.length += by;
        self.write_header(open, 0);
        self.open = Some(open);
    }

    fn write_header(&mut self, open: OpenFrame, flags: u8) {
        let header = FrameHeader { length: open.length as u32, kind: Kind::Data, flags, stream: open.stream };
        self.buffer[open.at..open.at + HEADER_LENGTH].copy_from_slice(&header.encode());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes place for `more` bytes behind the end; the open frame may have moved after that. Moves what waits to the front only if that is little against the room that it gives.
    fn reserve(&mut self, more: usize) {
        if self.buffer.is_empty() {
            self.buffer = lent::output();
        }
        if self.end + more <= self.buffer.len() {
            return;
        }
        if self.start >= self.len() + more {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            if let Some(open) = &mut self.open {
                open.at -= self.start;
            }
            self.start = 0;
        }
        let needed = self.end + more;
        if needed > self.buffer.len() {
            self.buffer.resize(needed.next_power_of_two().max(1 << 14), 0);
        }
    }
}

#[cfg(test)]
mod tests;
