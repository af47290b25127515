//! Header blocks: gathered, decoded, checked, and made a request, an answer or the end of a stream; and ours, written.

use crate::error::{ResetCode, StreamError};

use super::super::flow::{ReceiveWindow, SendWindow};
use super::super::frame::{self, END_HEADERS, END_STREAM, FrameHeader, Kind};
use super::super::hpack::{Field, HeaderList};
use super::super::limits::{LATE_PER_STREAM, MOST_CONTINUATIONS};
use super::super::queue::Queue;
use super::super::streams::{Key, Progress, Stream};
use super::super::violation::Violation;
use super::{Block, Connection, Farewell, Role};

/// Records, for each stream that may be open, of streams that have ended and are still held: a peer that opens, fills and resets streams
/// faster than their holders let go of them waits at this.
const RECORDS_PER_STREAM: usize = 4;

impl Connection {
    pub(super) fn headers(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        if header.stream == 0 {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        let fragment = frame::strip_headers(header.flags, payload)?;
        let end_stream = header.has(END_STREAM);
        if header.has(END_HEADERS) {
            return self.block_complete(header.stream, end_stream, fragment);
        }
        self.block = Some(Block { stream: header.stream, end_stream, bytes: fragment.to_vec(), continuations: 0 });
        Ok(())
    }

    pub(super) fn continuation(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        let mut block =
            self.block.take().filter(|block| block.stream == header.stream).ok_or(Violation::UNEXPECTED_FRAME)?;
        block.continuations += 1;
        if block.continuations > MOST_CONTINUATIONS {
            return Err(Violation::CONTINUATION_FLOOD);
        }
        // A list is never smaller than its block, but for its indexed fields, which only make the block smaller.
        if block.bytes.len() + payload.len() > self.numbers.max_header_list {
            return Err(Violation::HEADER_BOMB);
        }
        block.bytes.extend_from_slice(payload);
        if header.has(END_HEADERS) {
            return self.block_complete(block.stream, block.end_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    fn block_complete(&mut self, id: u32, end_stream: bool, block: &[u8]) -> Result<(), Violation> {
        // Also for a stream that is gone: the table is the connection's.
        let list = self.decoder.decode(block, self.numbers.max_header_list)?;
        match (self.streams.find(id), self.role) {
            (Some(key), _) => self.head_of_open(key, end_stream, list),
            (None, Role::Server) if id % 2 == 1 && id > self.stream_id => self.request(id, end_stream, list),
            (None, _) => self.late(id, 0),
        }
    }

    /// The answer to a request of ours, or trailers.
    fn head_of_open(&mut self, key: Key, end_stream: bool, list: HeaderList) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let offence = match stream.received {
            Progress::Nothing if is_interim(&list) && !end_stream => return Ok(()),
            Progress::Nothing if is_well_formed(&list, &[":status"]) => {
                stream.received = Progress::Head;
                stream.head = Some(Box::new(list));
                stream.wake_reader();
                None
            }
            // Trailers say nothing to us but that this is the end.
            Progress::Head if end_stream => None,
            Progress::Nothing | Progress::Head => Some(ResetCode::PROTOCOL_ERROR),
            Progress::End => Some(ResetCode::STREAM_CLOSED),
        };
        match offence {
            Some(code) => return self.offend(key, code),
            None if end_stream => self.peer_ended(key),
            None => {}
        }
        Ok(())
    }

    /// A new stream from the client.
    fn request(&mut self, id: u32, end_stream: bool, list: HeaderList) -> Result<(), Violation> {
        if self.farewell == Farewell::Left {
            // Opened before it heard of our end: it knows that nothing was done.
            return self.limits.late.spend();
        }
        self.stream_id = id;
        let known = [":method", ":scheme", ":authority", ":path", ":protocol"];
        let too_many = self.streams.live() >= self.numbers.max_streams
            || self.streams.records() >= self.numbers.max_streams * RECORDS_PER_STREAM;
        let refused = if too_many {
            Some(ResetCode::REFUSED_STREAM)
        } else if list.cut {
            Some(ResetCode::ENHANCE_YOUR_CALM)
        } else if !is_well_formed(&list, &known) || list.get(":method").is_none() {
            Some(ResetCode::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(code) = refused {
            self.send_reset(id, code, self.numbers.first_stream_window);
            return self.limits.refused.spend();
        }
        self.limits.refused.earn(1);
        let key = self.insert(id, Progress::Nothing, if end_stream { Progress::End } else { Progress::Head });
        if let Some(stream) = self.streams.get_mut(key) {
            stream.head = Some(Box::new(list));
            stream.handled = false;
        }
        self.requests.push_back(key);
        Ok(())
    }

    fn insert(&mut self, id: u32, sent: Progress, received: Progress) -> Key {
        self.limits.late.earn(LATE_PER_STREAM);
        self.streams.insert(Stream {
            id,
            sent,
            received,
            live: true,
            handled: true,
            in_line: false,
            called: false,
            error: None,
            send_window: SendWindow::new(self.peer_window),
            receive_window: ReceiveWindow::new(self.numbers.first_stream_window),
            receive_size: self.numbers.first_stream_window,
            queue: Queue::default(),
            head: None,
            reader: None,
            writer: None,
        })
    }

    /// The next request that nobody has taken yet, and the key of its stream, which the caller must [let go](Self::let_go) of.
    pub fn next_request(&mut self) -> Option<(Key, HeaderList)> {
        let key = self.requests.pop_front()?;
        let stream = self.streams.get_mut(key)?;
        stream.handled = true;
        let list = stream.head.take().map(|list| *list).unwrap_or_default();
        Some((key, list))
    }

    /// Opens a stream with a request. The caller has asked [`Self::poll_open`] and must [let go](Self::let_go) of the key.
    pub fn open(&mut self, fields: &[Field]) -> Key {
        let id = self.stream_id;
        self.stream_id += 2;
        let key = self.insert(id, Progress::Head, Progress::Nothing);
        self.write_head(id, fields, 0);
        key
    }

    /// Answers a request; `end` if nothing follows.
    ///
    /// # Errors
    /// The client is gone.
    pub fn respond(&mut self, key: Key, fields: &[Field], end: bool) -> Result<(), StreamError> {
        let lost = self.over.unwrap_or(StreamError::ConnectionLost);
        let stream = self.streams.get_mut(key).ok_or(lost)?;
        if !stream.live {
            return Err(stream.error.unwrap_or(StreamError::Ended));
        }
        stream.sent = if end { Progress::End } else { Progress::Head };
        let complete = end && stream.received == Progress::End;
        self.limits.withdrawn.earn(1);
        self.write_head(key.id(), fields, if end { END_STREAM } else { 0 });
        if complete {
            self.close(key);
        }
        Ok(())
    }

    fn write_head(&mut self, stream: u32, fields: &[Field], flags: u8) {
        let mut block = Vec::with_capacity(256);
        self.encoder.encode(fields, &mut block);
        let (first, mut rest) = block.split_at(block.len().min(self.peer_max_frame));
        let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        self.output.frame(Kind::Headers, flags | end(rest), stream, first);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(rest.len().min(self.peer_max_frame));
            self.output.frame(Kind::Continuation, end(after), stream, next);
            rest = after;
        }
        self.wake_mover();
    }
}

/// 1xx: something before the answer.
fn is_interim(list: &HeaderList) -> bool {
    list.get(":status").is_some_and(|status| status.len() == 3 && status[0] == b'1')
}

/// Pseudo-headers first, each known and once; names in lower case (RFC 9113 sections 8.2 and 8.3).
fn is_well_formed(list: &HeaderList, known: &[&str]) -> bool {
    let pseudo = list.fields.iter().take_while(|field| field.is_pseudo()).count();
    let (first, rest) = list.fields.split_at(pseudo);
    let distinct = first.iter().enumerate().all(|(place, field)| first[..place].iter().all(|f| f.name != field.name));
    let is_known = first.iter().all(|field| known.iter().any(|name| field.name == name.as_bytes()));
    let is_name = |name: &[u8]| !name.is_empty() && !name.iter().any(|b| matches!(b, b'A'..=b'Z' | 0..=0x20 | 0x7f..));
    distinct && is_known && !list.cut && rest.iter().all(|field| !field.is_pseudo() && is_name(&field.name))
}
