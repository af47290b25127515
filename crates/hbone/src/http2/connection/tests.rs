//! Two cores in one hand: what each rule of the protocol does to them, and that no cut of the bytes changes it.

use std::io::IoSlice;
use std::task::{Poll, Waker};

use proptest::prelude::*;

use super::super::frame::{END_HEADERS, END_STREAM, FrameHeader, PADDED, PREFACE};
use super::super::hpack::{Encoder, Field};
use super::super::{Arrived, Key, Violation};
use super::*;

mod attacks;

/// A client and a server, their greetings exchanged.
pub(super) struct Pair {
    pub(super) client: Connection,
    pub(super) server: Connection,
}

/// Takes everything that waits in an output.
pub(super) fn drain(connection: &mut Connection) -> Vec<u8> {
    let bytes = connection.output().to_vec();
    connection.sent(bytes.len());
    bytes
}

impl Pair {
    pub(super) fn new() -> Self {
        let settings = ConnectionSettings::default();
        let client = Connection::new(Role::Client, &settings);
        let mut pair = Self { client, server: Connection::new(Role::Server, &settings) };
        pair.client.count_user(true);
        pair.settle();
        pair
    }

    /// Carries bytes both ways until there are none.
    pub(super) fn settle(&mut self) {
        while !self.client.output().is_empty() || !self.server.output().is_empty() {
            let (up, down) = (drain(&mut self.client), drain(&mut self.server));
            self.server.receive(&up).unwrap();
            self.client.receive(&down).unwrap();
        }
    }

    /// A tunnel: its key at the client and at the server.
    pub(super) fn tunnel(&mut self) -> (Key, Key) {
        let near = self.client.open(&connect());
        self.settle();
        let (far, list) = self.server.next_request().unwrap();
        assert_eq!(list.get(":authority"), Some(&b"10.0.0.7:80"[..]));
        self.server.respond(far, &[Field::from_static(":status", "200")], false).unwrap();
        self.settle();
        assert!(self.client.poll_answer(near, Waker::noop()).is_ready());
        (near, far)
    }
}

pub(super) fn connect() -> [Field; 2] {
    [Field::from_static(":method", "CONNECT"), Field::from_static(":authority", "10.0.0.7:80")]
}

/// Sends as much as there is room for, `want` at most.
fn send(connection: &mut Connection, key: Key, want: usize) -> usize {
    match connection.poll_room(key, Waker::noop(), want) {
        Poll::Ready(Ok(room)) => {
            connection.send(key, &vec![7; room]);
            room
        }
        _ => 0,
    }
}

fn arrived(connection: &mut Connection, key: Key) -> Poll<Result<Arrived, StreamError>> {
    connection.poll_arrived(key, Waker::noop())
}

/// All bytes that wait in a stream.
fn waiting(connection: &Connection, key: Key) -> Vec<u8> {
    let mut pieces = [IoSlice::new(&[]); 64];
    let count = connection.arrived(key, &mut pieces);
    pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect()
}

#[test]
fn bytes_ends_and_resets_cross() {
    let mut pair = Pair::new();
    let (near, far) = pair.tunnel();
    pair.client.send(near, b"question");
    pair.client.finish(near).unwrap();
    pair.settle();
    assert_eq!(waiting(&pair.server, far), b"question");
    pair.server.take(far, 8);
    assert_eq!(arrived(&mut pair.server, far), Poll::Ready(Ok(Arrived::End)));
    pair.server.send(far, b"answer");
    pair.server.finish(far).unwrap();
    pair.settle();
    assert_eq!(waiting(&pair.client, near), b"answer");
    assert_eq!((pair.client.open_streams(), pair.server.open_streams()), (0, 0));
    pair.client.let_go(near);
    pair.server.let_go(far);

    let (near, far) = pair.tunnel();
    pair.server.send(far, b"part");
    pair.server.reset(far, ResetCode::CONNECT_ERROR);
    pair.settle();
    assert_eq!(arrived(&mut pair.client, near), Poll::Ready(Ok(Arrived::Bytes(4))));
    pair.client.take(near, 4);
    assert_eq!(arrived(&mut pair.client, near), Poll::Ready(Err(StreamError::Reset(ResetCode::CONNECT_ERROR))));
}

#[test]
fn a_stopped_reader_stops_its_sender_and_nobody_else() {
    let mut pair = Pair::new();
    let (stopped, held) = pair.tunnel();
    let (near, far) = pair.tunnel();
    let mut sent = 0;
    while let count @ 1.. = send(&mut pair.client, stopped, 1 << 20) {
        sent += count;
        pair.settle();
    }
    assert_eq!(sent, ConnectionSettings::default().first_stream_window as usize);
    for _ in 0..1000 {
        let count = send(&mut pair.client, near, 64 << 10);
        assert!(count > 0);
        pair.settle();
        pair.server.take(far, count);
        pair.server.release(far, count);
        pair.settle();
    }
    let count = waiting(&pair.server, held).len();
    pair.server.take(held, count);
    pair.server.release(held, count);
    pair.settle();
    assert!(send(&mut pair.client, stopped, 1 << 20) > 0);
}

/// A stream whose reader keeps up gets more window, up to the largest; all of it is taken back when it ends.
#[test]
fn windows_grow_with_their_readers() {
    let mut pair = Pair::new();
    let (near, far) = pair.tunnel();
    let mut most = 0;
    for _ in 0..200 {
        let mut flight = 0;
        while let count @ 1.. = send(&mut pair.client, near, 1 << 20) {
            flight += count;
            pair.settle();
        }
        most = most.max(flight);
        pair.server.take(far, flight);
        pair.server.release(far, flight);
        pair.settle();
    }
    assert_eq!(most, 2 << 20);
    assert!(pair.server.grown > 0);
    pair.client.reset(near, ResetCode::CANCEL);
    pair.settle();
    assert_eq!(pair.server.grown, 0);
}

#[test]
fn while_memory_is_tight_windows_are_small_and_nothing_stops() {
    let memory = weft_runtime::budget::Budget::new(1 << 20);
    let settings = ConnectionSettings { memory: memory.clone(), ..ConnectionSettings::default() };
    let mut pair = Pair::new();
    pair.server = Connection::new(Role::Server, &settings);
    pair.client = Connection::new(Role::Client, &ConnectionSettings::default());
    pair.client.count_user(true);
    pair.settle();
    let (near, far) = pair.tunnel();
    memory.take(1 << 20);
    let mut last = 0;
    for _ in 0..50 {
        last = 0;
        while let count @ 1.. = send(&mut pair.client, near, 1 << 20) {
            last += count;
            pair.settle();
        }
        pair.server.take(far, last);
        pair.server.release(far, last);
        pair.settle();
        assert!(last > 0);
    }
    assert!(last <= 64 << 10, "{last}");
    memory.release(1 << 20);
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_smaller_first_window_counts_for_open_streams() {
    let mut pair = Pair::new();
    let (near, _far) = pair.tunnel();
    assert_eq!(send(&mut pair.client, near, 100_000), 100_000);
    let frame = |size: u32| {
        let mut bytes = FrameHeader { length: 6, kind: Kind::Settings, flags: 0, stream: 0 }.encode().to_vec();
        bytes.extend(Setting::InitialWindow(size).encode());
        bytes
    };
    pair.client.receive(&frame(1000)).unwrap();
    assert_eq!(send(&mut pair.client, near, 1), 0);
    pair.client.receive(&frame(100_010)).unwrap();
    assert_eq!(send(&mut pair.client, near, 100), 10);
}

#[test]
fn a_draining_server_serves_what_crossed_its_goaway() {
    let mut pair = Pair::new();
    let (near, far) = pair.tunnel();
    pair.server.drain();
    let crossing = pair.client.open(&connect());
    pair.settle();
    assert!(pair.client.open_error().is_some());
    let (taken, _) = pair.server.next_request().expect("it was on its way");
    assert!(!pair.server.is_finished());
    for (near, far) in [(near, far), (crossing, taken)] {
        pair.server.respond(far, &[Field::from_static(":status", "200")], false).unwrap();
        pair.server.finish(far).unwrap();
        pair.client.finish(near).unwrap();
        pair.settle();
    }
    assert!(pair.server.is_finished() && pair.client.is_finished());
}

#[test]
fn streams_beyond_a_goaway_were_not_processed() {
    let mut pair = Pair::new();
    let (near, _far) = pair.tunnel();
    let late = pair.client.open(&connect());
    drain(&mut pair.client);
    let mut goaway = FrameHeader { length: 8, kind: Kind::GoAway, flags: 0, stream: 0 }.encode().to_vec();
    goaway.extend(frame::encode_goaway(near.id(), ResetCode::NO_ERROR));
    pair.client.receive(&goaway).unwrap();
    let error = pair.client.poll_answer(late, Waker::noop());
    assert_eq!(error, Poll::Ready(Err(StreamError::GoneAway(ResetCode::NO_ERROR))));
    assert!(send(&mut pair.client, near, 1) == 1, "an older stream goes on");
}

#[test]
fn streams_beyond_the_limit_are_refused_and_counted() {
    let mut pair = Pair::new();
    for _ in 0..200 {
        pair.client.open(&connect());
    }
    let refused = pair.client.open(&connect());
    pair.settle();
    let answer = pair.client.poll_answer(refused, Waker::noop());
    assert_eq!(answer, Poll::Ready(Err(StreamError::Reset(ResetCode::REFUSED_STREAM))));
    assert_eq!(pair.server.open_streams(), 200);
}

/// Frames as a peer may send them: heads, data with and without padding, ends, windows, resets, and kinds that mean nothing.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let id = prop::sample::select(vec![1_u32, 3, 5, 7]);
    let frame = |kind, flags, stream, payload: &[u8]| {
        let mut bytes = FrameHeader { length: payload.len() as u32, kind, flags, stream }.encode().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    };
    let head = {
        let mut block = Vec::new();
        Encoder::default().encode(&connect(), &mut block);
        block
    };
    let split = head.clone();
    prop_oneof![
        2 => id.clone().prop_map(move |id| frame(Kind::Headers, END_HEADERS, id, &head)),
        1 => id.clone().prop_map(move |id| {
            [frame(Kind::Headers, 0, id, &split[..3]), frame(Kind::Continuation, END_HEADERS, id, &split[3..])].concat()
        }),
        4 => (id.clone(), prop::collection::vec(any::<u8>(), 0..600), any::<bool>(), 0..20_u8).prop_map(
            move |(id, data, end, padding)| {
                let flags = if end && padding == 0 { END_STREAM } else { 0 };
                if padding == 0 { return frame(Kind::Data, flags, id, &data) }
                let payload = [&[padding][..], &data, &vec![0; padding.into()]].concat();
                frame(Kind::Data, flags | PADDED, id, &payload)
            }),
        1 => (id.clone(), 0..1000_u32).prop_map(move |(id, by)| frame(Kind::WindowUpdate, 0, id, &by.to_be_bytes())),
        1 => id.clone().prop_map(move |id| frame(Kind::RstStream, 0, id, &[0, 0, 0, 8])),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(move |payload| frame(Kind::Unknown(0x42), 0xff, 9, &payload)),
        1 => Just(frame(Kind::Ping, 0, 0, &[1; 8])),
        1 => Just(frame(Kind::Priority, 0, 3, &[0; 5])),
        1 => (id, any::<u8>(), prop::collection::vec(any::<u8>(), 0..12), 0..10_u8)
            .prop_map(move |(id, flags, payload, kind)| frame(Kind::from(kind), flags, id, &payload)),
    ]
}

/// A stream that a server was asked for: its identifier, what waits in it, and whether that is all.
type Seen = (u32, Vec<u8>, bool);

/// What a server made of some bytes: how it ended, its streams, its answers.
fn outcome(pieces: &[&[u8]]) -> (Option<Violation>, Vec<Seen>, Vec<u8>) {
    let mut server = Connection::new(Role::Server, &ConnectionSettings::default());
    let mut violation = None;
    for piece in pieces {
        if let Err(error) = server.receive(piece) {
            violation = Some(error);
            break;
        }
    }
    let mut streams = Vec::new();
    while let Some((key, _)) = server.next_request() {
        streams.push((key.id(), waiting(&server, key), server.is_receive_complete(key)));
    }
    (violation, streams, drain(&mut server))
}

proptest! {
    /// However the transport cuts the bytes, the same comes of them.
    #[test]
    fn no_cut_changes_anything(frames in prop::collection::vec(any_frames(), 0..25), cuts in prop::collection::vec(1..90_usize, 1..200)) {
        let empty = FrameHeader { length: 0, kind: Kind::Settings, flags: 0, stream: 0 }.encode();
        let bytes = [&PREFACE[..], &empty, &frames.concat()].concat();
        let whole = outcome(&[&bytes]);
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() { break }
        }
        prop_assert_eq!(outcome(&pieces), whole);
    }

    /// Noise behind a greeting ends in a violation or in nothing, never in a panic; and a client that hears it likewise.
    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..2000), frames in prop::collection::vec(any_frames(), 0..10)) {
        let mut pair = Pair::new();
        let (_near, _far) = pair.tunnel();
        let bytes = [frames.concat(), noise].concat();
        let _ = pair.server.receive(&bytes);
        let _ = pair.client.receive(&bytes);
    }
}
