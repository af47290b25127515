//! What frames do to a connection: DATA here, the others by kind.

use crate::error::{ResetCode, StreamError};

use super::super::frame::{END_STREAM, FrameHeader, Kind};
use super::super::limits::RESETS_REMEMBERED;
use super::super::streams::{Key, Progress};
use super::super::violation::Violation;
use super::super::walker::Sink;
use super::{Connection, Incoming, Role};

/// How far the agent-wide count of held bytes may lag behind. 64 KiB: one atomic operation for four records, not one for each.
const COUNT_STEP: usize = 64 << 10;

impl Sink for Connection {
    fn data_begins(&mut self, header: FrameHeader) -> Result<(), Violation> {
        if !self.settings_seen || self.block.is_some() || header.stream == 0 {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        if !self.receive_window.receive(header.length) {
            return Err(Violation::WINDOW_EXCEEDED);
        }
        if header.length == 0 && !header.has(END_STREAM) {
            self.limits.empty.spend()?;
        }
        self.incoming = Incoming { key: self.data_target(header)?, left: header.length };
        Ok(())
    }

    fn data(&mut self, part: &[u8]) {
        let count = part.len() as u32;
        self.incoming.left = self.incoming.left.saturating_sub(count);
        // What is passed on from a stream gives the stream's window back; the connection's is free at once, so that no reader that
        // stopped holds up the others.
        self.receive_window.release(count);
        let stream = self.incoming.key.and_then(|key| self.streams.get_mut(key)).filter(|stream| stream.live);
        if let Some(stream) = stream {
            stream.queue.push(part);
            stream.wake_reader();
            self.held += part.len();
            self.count_held();
        }
    }

    fn data_ends(&mut self, header: FrameHeader) -> Result<(), Violation> {
        let Incoming { key, left: padding } = std::mem::take(&mut self.incoming);
        self.receive_window.release(padding);
        let Some(key) = key else { return Ok(()) };
        if let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.live) {
            stream.receive_window.release(padding);
            if header.has(END_STREAM) {
                self.peer_ended(key);
            }
        }
        Ok(())
    }

    fn frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        if !self.settings_seen && header.kind != Kind::Settings {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        if self.block.is_some() && header.kind != Kind::Continuation {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        match header.kind {
            Kind::Headers => self.headers(header, payload),
            Kind::Continuation => self.continuation(header, payload),
            Kind::RstStream => self.rst_stream(header, payload),
            Kind::Settings => self.settings(header, payload),
            Kind::Ping => self.ping(header, payload),
            Kind::GoAway => self.goaway(header, payload),
            Kind::WindowUpdate => self.window_update(header, payload),
            Kind::Priority | Kind::Unknown(_) => self.limits.ignored.spend(),
            Kind::PushPromise | Kind::Data => Err(Violation::UNEXPECTED_FRAME),
        }
    }
}

impl Connection {
    /// The stream that a DATA frame is for, its window counted; `None` if the bytes are to be dropped.
    fn data_target(&mut self, header: FrameHeader) -> Result<Option<Key>, Violation> {
        let Some(key) = self.streams.find(header.stream) else {
            self.late(header.stream, header.length)?;
            return Ok(None);
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        let offence = match stream.received {
            Progress::Nothing => ResetCode::PROTOCOL_ERROR,
            Progress::End => ResetCode::STREAM_CLOSED,
            Progress::Head if stream.receive_window.receive(header.length) => return Ok(Some(key)),
            Progress::Head => ResetCode::FLOW_CONTROL_ERROR,
        };
        self.offend(key, offence)?;
        Ok(None)
    }

    /// A frame, with so much DATA, for a stream that is not open: forgiven if it may have crossed our own end of it.
    pub(super) fn late(&mut self, stream: u32, length: u32) -> Result<(), Violation> {
        let is_ours = (stream % 2 == 1) == (self.role == Role::Client);
        let was_open = match self.role {
            Role::Client => is_ours && stream < self.stream_id,
            Role::Server => !is_ours && stream <= self.stream_id,
        };
        if !was_open {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        match self.forgotten.iter_mut().rev().find(|(id, _)| *id == stream) {
            Some((_, credit)) => {
                *credit = credit.checked_sub(length).ok_or(Violation::WINDOW_EXCEEDED)?;
                Ok(())
            }
            None => self.limits.late.spend(),
        }
    }

    /// END_STREAM came.
    pub(super) fn peer_ended(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.received = Progress::End;
        stream.wake_reader();
        if stream.sent == Progress::End {
            self.close(key);
        }
    }

    /// The peer broke the rules of one stream, which ends. Counted: a peer can make us reset streams as it can reset them itself.
    pub(super) fn offend(&mut self, key: Key, code: ResetCode) -> Result<(), Violation> {
        self.reset_live(key, code);
        self.limits.withdrawn.spend()
    }

    /// Ends a stream for both ends, by RST_STREAM.
    pub(super) fn reset_live(&mut self, key: Key, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.live) else { return };
        let credit = stream.receive_window.credit();
        self.send_reset(key.id(), code, credit);
        self.fail(key, StreamError::Reset(code));
    }

    /// Says RST_STREAM, and remembers what may still come.
    pub(super) fn send_reset(&mut self, stream: u32, code: ResetCode, credit: u32) {
        self.output.frame(Kind::RstStream, 0, stream, &code.0.to_be_bytes());
        if self.forgotten.len() == RESETS_REMEMBERED {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back((stream, credit));
    }

    /// A live stream is over with an error. What arrived before, the peer's orderly end included, stays.
    pub(super) fn fail(&mut self, key: Key, error: StreamError) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.error.get_or_insert(error);
            stream.wake();
            self.close(key);
        }
    }

    /// A stream is live no more. Its record goes when its holder lets go of it, or now if it has none.
    pub(super) fn close(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.live) else { return };
        stream.live = false;
        self.grown -= u64::from(stream.receive_size - self.numbers.first_stream_window);
        stream.receive_size = self.numbers.first_stream_window;
        let handled = stream.handled;
        self.streams.retire(key.id());
        self.openers.drain(..).for_each(std::task::Waker::wake);
        if !handled {
            self.requests.retain(|request| *request != key);
            self.remove(key);
        }
        if self.streams.live() == 0 {
            self.wake_mover();
        }
    }

    /// Forgets a stream.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(stream) = self.streams.remove(key) {
            self.held -= stream.queue.len();
            self.count_held();
            self.give_window_back();
        }
    }

    /// Tells the whole agent what is held here, roughly.
    pub(super) fn count_held(&mut self) {
        if self.held.abs_diff(self.holding.bytes()) >= COUNT_STEP || (self.held == 0 && self.holding.bytes() > 0) {
            self.holding.set(self.held);
        }
    }

    /// The connection's window goes back on receipt, unless its streams hold more than all of them may together.
    pub(super) fn give_window_back(&mut self) {
        if self.held <= self.numbers.most_held
            && self.over.is_none()
            && let Some(increment) = self.receive_window.update(self.numbers.connection_window)
        {
            self.output.frame(Kind::WindowUpdate, 0, 0, &increment.to_be_bytes());
        }
    }
}
