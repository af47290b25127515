//! One connection, either end: its state between two calls, and how it begins and ends.
//!
//! ```text
//!            drain (server)             PONG: nothing new crossed it        last stream ended
//! Open ----------------------> Leaving ------------------------------> Left ----------------> finished
//!   '---- GOAWAY came, or nobody can open streams any more, and the last stream ended ----------^
//! ```
//! Its parts are in `connection/`: `received` takes frames, `heads` header blocks, `control` the frames of the connection itself;
//! `stream` and `room` are what the holder of a [`Key`] calls.

use std::collections::VecDeque;
use std::task::Waker;

use weft_runtime::budget::Holding;

use crate::error::{ResetCode, StreamError};
use crate::settings::{ConnectionSettings, MAX_TUNNELS};

use super::flow::{ReceiveWindow, SendWindow};
use super::frame::{self, DEFAULT_MAX_FRAME, DEFAULT_WINDOW, Kind, LARGEST_31, PREFACE, Setting};
use super::hpack::{Decoder, Encoder};
use super::limits::{Limits, MOST_UNREAD};
use super::output::Output;
use super::streams::{Key, Streams};
use super::violation::Violation;
use super::walker::Walker;

mod control;
mod heads;
mod received;
pub mod room;
pub mod stream;
#[cfg(test)]
mod tests;

/// The PING behind a first GOAWAY: when its answer is here, no new stream is under way any more.
const DRAIN_PING: &[u8; 8] = b"weft: go";

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Client,
    /// Is asked for them.
    Server,
}

/// How far a server has come in saying good-bye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Open,
    /// GOAWAY without a last stream, and a PING behind it.
    Leaving,
    /// GOAWAY with the last stream.
    Left,
}

/// The numbers of [`ConnectionSettings`] that the core needs.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    first_stream_window: u32,
    stream_window: u32,
    connection_window: u32,
    grown_windows: u64,
    most_held: usize,
    max_streams: usize,
    max_header_list: usize,
}

/// A header block that is not complete.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

/// A DATA frame that is not complete.
#[derive(Debug, Clone, Copy, Default)]
struct Incoming {
    /// Nobody wants it if `None`.
    key: Option<Key>,
    left: u32,
}

/// One HTTP/2 connection. See the [module](self).
#[derive(Debug)]
pub struct Connection {
    role: Role,
    numbers: Numbers,
    walker: Walker,
    encoder: Encoder,
    decoder: Decoder,
    streams: Streams,
    output: Output,
    limits: Limits,
    /// Whoever moves [`Self::output`]; woken once when there is something to move.
    mover: Option<Waker>,
    /// Why everything is over.
    over: Option<StreamError>,
    // What the peer said.
    settings_seen: bool,
    peer_window: u32,
    peer_max_frame: usize,
    peer_max_streams: usize,
    going_away: Option<ResetCode>,
    // Windows of the connection.
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// Sum of what stream windows have grown.
    grown: u64,
    /// Bytes in the queues of streams, and the agent-wide count of them.
    held: usize,
    holding: Holding,
    // Frames in pieces.
    block: Option<Block>,
    incoming: Incoming,
    // Streams.
    /// Client: the next identifier. Server: the highest that was used.
    stream_id: u32,
    requests: VecDeque<Key>,
    /// Those that wait for room in the output or in the connection's window, in order.
    line: VecDeque<Key>,
    openers: Vec<Waker>,
    drained: Vec<(u64, Waker)>,
    /// Streams that we have reset, with the window that the peer may still use for them.
    forgotten: VecDeque<(u32, u32)>,
    // Its life.
    users: usize,
    farewell: Farewell,
    said_goodbye: bool,
    ponged: bool,
}

impl Connection {
    /// A connection that has said its preface and SETTINGS ([`Self::output`]) and heard nothing yet.
    #[must_use]
    pub fn new(role: Role, settings: &ConnectionSettings) -> Self {
        let numbers = Numbers {
            first_stream_window: settings.first_stream_window,
            stream_window: settings.stream_window.max(settings.first_stream_window),
            connection_window: settings.connection_window,
            grown_windows: settings.grown_windows as u64,
            most_held: settings.most_held,
            max_streams: settings.max_concurrent_streams as usize,
            max_header_list: settings.max_header_list_size as usize,
        };
        let mut connection = Self {
            role,
            numbers,
            walker: Walker::new(role == Role::Server, settings.max_frame_size, settings.max_header_list_size),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            streams: Streams::default(),
            output: Output::default(),
            limits: Limits::default(),
            mover: None,
            over: None,
            settings_seen: false,
            peer_window: DEFAULT_WINDOW,
            peer_max_frame: DEFAULT_MAX_FRAME as usize,
            peer_max_streams: MAX_TUNNELS,
            going_away: None,
            send_window: SendWindow::new(DEFAULT_WINDOW),
            receive_window: ReceiveWindow::new(settings.connection_window),
            grown: 0,
            held: 0,
            holding: settings.memory.holding(),
            block: None,
            incoming: Incoming::default(),
            stream_id: u32::from(role == Role::Client),
            requests: VecDeque::new(),
            line: VecDeque::new(),
            openers: Vec::new(),
            drained: Vec::new(),
            forgotten: VecDeque::new(),
            users: 0,
            farewell: Farewell::Open,
            said_goodbye: false,
            ponged: false,
        };
        connection.greet(settings);
        connection
    }

    fn greet(&mut self, settings: &ConnectionSettings) {
        let role = match self.role {
            Role::Client => {
                self.output.raw(PREFACE);
                Setting::EnablePush(false)
            }
            Role::Server => Setting::MaxConcurrentStreams(settings.max_concurrent_streams),
        };
        let announced = [
            role,
            Setting::InitialWindow(self.numbers.first_stream_window),
            Setting::MaxFrame(settings.max_frame_size),
            Setting::MaxHeaderList(settings.max_header_list_size),
        ];
        self.output.frame(Kind::Settings, 0, 0, announced.map(Setting::encode).as_flattened());
        let more = settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            self.output.frame(Kind::WindowUpdate, 0, 0, &more.to_be_bytes());
        }
    }

    /// Takes bytes from the peer, cut anywhere; all of them. What they cause is in the streams, in [`Self::next_request`] and in
    /// [`Self::output`] afterwards. Nothing is taken any more once the connection is [over](Self::is_over).
    ///
    /// # Errors
    /// What the peer must not do. The connection is over then; send the rest of the output, which says why, and close.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.over.is_some() {
            return Ok(());
        }
        let mut walker = std::mem::take(&mut self.walker);
        let mut walked = walker.walk(bytes, self);
        self.walker = walker;
        self.give_window_back();
        if walked.is_ok() && self.output.len() > MOST_UNREAD {
            walked = Err(Violation::ANSWERS_UNREAD);
        }
        if let Err(violation) = walked {
            self.goodbye(violation.code, violation.reason);
            self.end(StreamError::ConnectionLost);
        }
        walked
    }

    /// Whether a server still waits for the first 24 bytes.
    #[must_use]
    pub fn awaits_preface(&self) -> bool {
        self.walker.awaits_preface()
    }

    /// What waits for the transport.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.waiting()
    }

    /// The transport has taken `count` bytes of [`Self::output`].
    pub fn sent(&mut self, count: usize) {
        self.output.sent(count);
        let output = &self.output;
        self.drained.retain(|(position, waker)| {
            let waits = !output.has_left(*position);
            if !waits {
                waker.wake_by_ref();
            }
            waits
        });
        self.call_line();
    }

    /// Who is woken, once, when somebody else put something into [`Self::output`] or the connection is finished.
    pub fn set_mover(&mut self, waker: &Waker) {
        super::streams::remember(&mut self.mover, waker);
    }

    fn wake_mover(&mut self) {
        if let Some(waker) = self.mover.take() {
            waker.wake();
        }
    }

    /// Everything is over: each open stream fails with `error`, and nothing is taken or opened any more. What waits in
    /// [`Self::output`] may still be sent.
    pub fn end(&mut self, error: StreamError) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(error);
        for key in self.streams.keys() {
            self.fail(key, error);
        }
        self.requests.clear();
        self.line.clear();
        self.openers.drain(..).for_each(Waker::wake);
        self.drained.drain(..).for_each(|(_, waker)| waker.wake());
        self.wake_mover();
    }

    /// Whether everything is over, by [`Self::end`] or by a violation.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Whether there is nothing more to do: no stream is open, and none will be. Says GOAWAY the first time that it is so.
    pub fn is_finished(&mut self) -> bool {
        let none_will_come = match self.role {
            Role::Client => self.users == 0 || self.going_away.is_some(),
            Role::Server => self.farewell == Farewell::Left,
        };
        let finished = self.over.is_some() || (none_will_come && self.streams.live() == 0);
        if finished && self.over.is_none() {
            self.goodbye(ResetCode::NO_ERROR, "");
        }
        finished
    }

    /// Streams that are open now.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.live()
    }

    /// One more, or one less, who may open streams. The connection of a client is finished when there is nobody.
    pub fn count_user(&mut self, one_more: bool) {
        if one_more {
            self.users += 1;
            return;
        }
        self.users = self.users.saturating_sub(1);
        if self.users == 0 {
            self.wake_mover();
        }
    }

    /// A while is over: allowances for what peers rarely do are full again.
    pub fn refill_limits(&mut self) {
        self.limits.refill();
    }

    /// The last GOAWAY, once.
    fn goodbye(&mut self, code: ResetCode, reason: &str) {
        if self.said_goodbye {
            return;
        }
        self.said_goodbye = true;
        let last = if self.role == Role::Server { self.stream_id } else { 0 };
        let payload = [&frame::encode_goaway(last, code)[..], reason.as_bytes()].concat();
        self.output.frame(Kind::GoAway, 0, 0, &payload);
    }

    /// An abrupt end of our own: GOAWAY NO_ERROR, and every stream fails.
    pub fn abort(&mut self) {
        if self.over.is_none() {
            self.goodbye(ResetCode::NO_ERROR, "");
            self.end(StreamError::ConnectionLost);
        }
    }

    /// A server's graceful end: tells the client to open nothing more, and after a round trip which streams still count.
    pub fn drain(&mut self) {
        if self.farewell == Farewell::Open && self.over.is_none() {
            self.farewell = Farewell::Leaving;
            self.output.frame(Kind::GoAway, 0, 0, &frame::encode_goaway(LARGEST_31, ResetCode::NO_ERROR));
            self.output.frame(Kind::Ping, 0, 0, DRAIN_PING);
            self.wake_mover();
        }
    }
}
