//! The frames of the connection itself: SETTINGS, PING, GOAWAY; and the short ones of streams: WINDOW_UPDATE, RST_STREAM.

use crate::error::{ResetCode, StreamError};
use crate::settings::MAX_TUNNELS;

use super::super::frame::{self, ACK, FrameHeader, Kind, Setting};
use super::super::limits::TINY_INCREMENT;
use super::super::streams::Progress;
use super::super::violation::Violation;
use super::{Connection, DRAIN_PING, Farewell, Role};

/// The PING that asks whether the peer is there.
const ALIVE_PING: &[u8; 8] = b"weft: ok";

impl Connection {
    pub(super) fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        self.limits.settings.spend()?;
        if header.stream != 0 {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        if header.has(ACK) {
            return match (self.settings_seen, payload.is_empty()) {
                (false, _) => Err(Violation::UNEXPECTED_FRAME),
                (true, false) => Err(Violation::FRAME_SIZE),
                (true, true) => Ok(()),
            };
        }
        self.settings_seen = true;
        for setting in Setting::decode_all(payload)? {
            match setting? {
                Setting::InitialWindow(size) => self.change_first_window(size)?,
                Setting::MaxFrame(size) => self.peer_max_frame = size as usize,
                Setting::MaxConcurrentStreams(count) => {
                    self.peer_max_streams = MAX_TUNNELS.min(count as usize);
                    self.openers.drain(..).for_each(std::task::Waker::wake);
                }
                Setting::EnablePush(true) if self.role == Role::Client => return Err(Violation::SETTING),
                // Our heads are far below any limit, and we never push.
                Setting::EnablePush(_) | Setting::MaxHeaderList(_) | Setting::Other(..) => {}
            }
        }
        self.output.frame(Kind::Settings, ACK, 0, &[]);
        Ok(())
    }

    /// The first window of streams counts for the open ones too (RFC 9113 section 6.9.2).
    fn change_first_window(&mut self, size: u32) -> Result<(), Violation> {
        let by = i64::from(size) - i64::from(self.peer_window);
        self.peer_window = size;
        for stream in self.streams.iter_mut().filter(|stream| stream.live) {
            if !stream.send_window.shift(by) {
                return Err(Violation::WINDOW_OVERFLOW);
            }
            if by > 0 {
                stream.wake_writer();
            }
        }
        Ok(())
    }

    pub(super) fn ping(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        self.limits.pings.spend()?;
        if header.stream != 0 {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        if !header.has(ACK) {
            self.output.frame(Kind::Ping, ACK, 0, payload);
        } else if payload == ALIVE_PING {
            self.ponged = true;
        } else if payload == DRAIN_PING && self.farewell == Farewell::Leaving {
            self.farewell = Farewell::Left;
            let goaway = frame::encode_goaway(self.stream_id, ResetCode::NO_ERROR);
            self.output.frame(Kind::GoAway, 0, 0, &goaway);
        }
        Ok(())
    }

    /// Asks whether the peer is there.
    pub fn send_ping(&mut self) {
        self.ponged = false;
        self.output.frame(Kind::Ping, 0, 0, ALIVE_PING);
    }

    /// Whether the answer to [`Self::send_ping`] has come.
    #[must_use]
    pub fn has_ponged(&self) -> bool {
        self.ponged
    }

    pub(super) fn goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        self.limits.settings.spend()?;
        let (last, code) = frame::decode_goaway(payload)?;
        if header.stream != 0 {
            return Err(Violation::UNEXPECTED_FRAME);
        }
        // The first word is the one that says why.
        self.going_away.get_or_insert(code);
        if code != ResetCode::NO_ERROR {
            self.going_away = Some(code);
        }
        if self.role == Role::Client {
            for key in self.streams.keys().into_iter().filter(|key| key.id() > last) {
                self.fail(key, StreamError::GoneAway(code));
            }
        }
        self.openers.drain(..).for_each(std::task::Waker::wake);
        Ok(())
    }

    /// What the peer's GOAWAY said, if there was one.
    #[must_use]
    pub fn going_away(&self) -> Option<ResetCode> {
        self.going_away
    }

    pub(super) fn window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        let increment = frame::decode_word(payload)? & frame::LARGEST_31;
        if increment < TINY_INCREMENT {
            self.limits.tiny_updates.spend()?;
        }
        if header.stream == 0 {
            if increment == 0 {
                return Err(Violation::ZERO_INCREMENT);
            }
            if !self.send_window.shift(increment.into()) {
                return Err(Violation::WINDOW_OVERFLOW);
            }
            self.call_line();
            return Ok(());
        }
        let Some(key) = self.streams.find(header.stream) else { return self.late(header.stream, 0) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if increment == 0 {
            return self.offend(key, ResetCode::PROTOCOL_ERROR);
        }
        if !stream.send_window.shift(increment.into()) {
            return self.offend(key, ResetCode::FLOW_CONTROL_ERROR);
        }
        stream.wake_writer();
        Ok(())
    }

    pub(super) fn rst_stream(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Violation> {
        let code = ResetCode(frame::decode_word(payload)?);
        let Some(key) = self.streams.find(header.stream) else { return self.late(header.stream, 0) };
        let unanswered = self.streams.get(key).is_some_and(|stream| stream.sent == Progress::Nothing);
        self.fail(key, StreamError::Reset(code));
        if unanswered { self.limits.withdrawn.spend() } else { Ok(()) }
    }
}
