//! Each known attack on HTTP/2, on 15008 as a client would do it: it ends with its word, after a bounded number of frames and with
//! bounded memory, and what honest peers do is far from that.

use rstest::rstest;

use super::super::super::frame::{self, DEFAULT_MAX_FRAME, FrameHeader, HEADER_LENGTH, Kind};
use super::super::super::hpack::Encoder;
use super::{
    Connection, ConnectionSettings, END_HEADERS, END_STREAM, Field, Pair, Poll, ResetCode, Role, Setting, Violation,
    Waker, connect, drain,
};

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = FrameHeader { length: payload.len() as u32, kind, flags, stream }.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// A server behind a client's greeting, as the attacker finds it.
fn server() -> Connection {
    let settings = ConnectionSettings::default();
    let mut server = Connection::new(Role::Server, &settings);
    server.receive(&drain(&mut Connection::new(Role::Client, &settings))).unwrap();
    drain(&mut server);
    server
}

/// A request's block, without what the first one of a connection says.
fn block(encoder: &mut Encoder) -> Vec<u8> {
    let mut block = Vec::new();
    encoder.encode(&connect(), &mut block);
    block
}

fn request(encoder: &mut Encoder, id: u32) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS, id, &block(encoder))
}

/// Sends `next(i)` until the connection ends; says how, and after how many. The server's answers are read all the while.
fn attack(server: &mut Connection, mut next: impl FnMut(u32) -> Vec<u8>) -> (Violation, u32) {
    for count in 0..200_000 {
        if let Err(violation) = server.receive(&next(count)) {
            assert!(server.is_over());
            // The last word says why.
            let output = drain(server);
            let reason = violation.reason.as_bytes();
            assert!(output.ends_with(reason), "no reasoned GOAWAY");
            let payload = &output[output.len() - reason.len() - 8..];
            assert_eq!(frame::decode_goaway(payload).unwrap().1, violation.code);
            return (violation, count);
        }
        drain(server);
    }
    panic!("goes on for ever");
}

#[rstest]
#[case::ping(frame(Kind::Ping, 0, 0, &[0; 8]), Violation::PING_FLOOD, 1000)]
#[case::ping_answers(frame(Kind::Ping, frame::ACK, 0, &[0; 8]), Violation::PING_FLOOD, 1000)]
#[case::settings(frame(Kind::Settings, 0, 0, &[]), Violation::SETTINGS_FLOOD, 100)]
#[case::settings_answers(frame(Kind::Settings, frame::ACK, 0, &[]), Violation::SETTINGS_FLOOD, 100)]
#[case::priority(frame(Kind::Priority, 0, 1, &[0; 5]), Violation::IGNORED_FRAMES, 10_000)]
#[case::unknown(frame(Kind::Unknown(0x77), 0, 1, &[]), Violation::IGNORED_FRAMES, 10_000)]
#[case::goaway(frame(Kind::GoAway, 0, 0, &[0; 8]), Violation::SETTINGS_FLOOD, 100)]
#[case::tiny_windows(frame(Kind::WindowUpdate, 0, 0, &[0, 0, 0, 1]), Violation::WINDOW_FLOOD, 10_000)]
fn a_flood_ends(#[case] flood: Vec<u8>, #[case] violation: Violation, #[case] allowed: u32) {
    let (seen, count) = attack(&mut server(), |_| flood.clone());
    assert_eq!(seen, violation);
    assert!((allowed - 2..=allowed).contains(&count), "{count}");
}

#[test]
fn rapid_reset() {
    let (mut server, mut encoder) = (server(), Encoder::default());
    let (violation, count) = attack(&mut server, |count| {
        let id = 2 * count + 1;
        [request(&mut encoder, id), frame(Kind::RstStream, 0, id, &[0, 0, 0, 8])].concat()
    });
    assert_eq!((violation, count), (Violation::RAPID_RESET, 1000));
    assert!(server.next_request().is_none(), "nobody was bothered with any of them");
}

/// Honest: tunnels that the client resets after they were accepted, many more than a flood may have.
#[test]
fn resets_of_accepted_tunnels_are_no_attack() {
    let (mut server, mut encoder) = (server(), Encoder::default());
    for id in (1..10_000).step_by(2) {
        server.receive(&request(&mut encoder, id)).unwrap();
        let (key, _) = server.next_request().unwrap();
        server.respond(key, &[Field::from_static(":status", "200")], false).unwrap();
        server.receive(&frame(Kind::RstStream, 0, id, &[0, 0, 0, 8])).unwrap();
        server.let_go(key);
        drain(&mut server);
    }
    assert_eq!(server.streams.records(), 0);
}

/// Requests that the server has to reset (malformed) or refuse (too many) cost the peer its connection too.
#[test]
fn made_you_reset() {
    let (mut first, mut encoder) = (server(), Encoder::default());
    let (violation, count) = attack(&mut first, |count| {
        let id = 2 * count + 1;
        frame(Kind::Headers, END_HEADERS, id, &[0x00, 1, b'A', 1, b'b'])
    });
    assert_eq!((violation, count), (Violation::STREAM_FLOOD, 1000));
    let mut second = server();
    let (violation, count) = attack(&mut second, |count| request(&mut encoder, 2 * count + 1));
    assert_eq!((violation, count), (Violation::STREAM_FLOOD, 1200));
    // A stream is opened well and made to be reset by a window of nothing.
    let (mut third, mut encoder) = (server(), Encoder::default());
    let (violation, count) = attack(&mut third, |count| {
        let id = 2 * count + 1;
        [request(&mut encoder, id), frame(Kind::WindowUpdate, 0, id, &[0; 4])].concat()
    });
    assert_eq!((violation, count), (Violation::RAPID_RESET, 1000));
}

#[test]
fn continuation_flood() {
    let mut empty = server();
    empty.receive(&frame(Kind::Headers, 0, 1, &[])).unwrap();
    let (violation, count) = attack(&mut empty, |_| frame(Kind::Continuation, 0, 1, &[]));
    assert_eq!((violation, count), (Violation::CONTINUATION_FLOOD, 32));
    let mut full = server();
    full.receive(&frame(Kind::Headers, 0, 1, &[])).unwrap();
    let (violation, count) = attack(&mut full, |_| frame(Kind::Continuation, 0, 1, &[0; DEFAULT_MAX_FRAME as usize]));
    assert_eq!((violation, count), (Violation::HEADER_BOMB, 4));
}

/// One frame's block larger than any list may be is not even gathered.
#[test]
fn a_huge_block() {
    let mut server = server();
    let header = FrameHeader { length: 200_000, kind: Kind::Headers, flags: END_HEADERS, stream: 1 };
    assert_eq!(server.receive(&header.encode()), Err(Violation::HEADER_BOMB));
}

/// A small block that decodes to megabytes: the stream is reset, the connection goes on, and each repetition counts.
#[test]
fn a_header_bomb() {
    let mut server = server();
    let bomb = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000], &[0x80 | 62; 10_000]].concat();
    server.receive(&frame(Kind::Headers, END_HEADERS, 1, &bomb)).unwrap();
    let output = drain(&mut server);
    let reset = FrameHeader::decode(*output.first_chunk::<HEADER_LENGTH>().unwrap());
    assert_eq!((reset.kind, reset.stream), (Kind::RstStream, 1));
    assert_eq!(frame::decode_word(&output[HEADER_LENGTH..]), Ok(ResetCode::ENHANCE_YOUR_CALM.0));
    let (violation, _) =
        attack(&mut server, |count| frame(Kind::Headers, END_HEADERS, 2 * count + 3, &[0x80 | 62; 10_000]));
    assert_eq!(violation, Violation::STREAM_FLOOD);
}

#[test]
fn empty_data_frames() {
    let (mut server, mut encoder) = (server(), Encoder::default());
    server.receive(&request(&mut encoder, 1)).unwrap();
    let (violation, count) = attack(&mut server, |_| frame(Kind::Data, 0, 1, &[]));
    assert_eq!((violation, count), (Violation::EMPTY_FRAMES, 1000));
}

#[test]
fn window_games() {
    let mut overflow = server();
    let (violation, count) = attack(&mut overflow, |_| frame(Kind::WindowUpdate, 0, 0, &[0x7f, 0xff, 0xff, 0xff]));
    assert_eq!((violation, count), (Violation::WINDOW_OVERFLOW, 0));
    assert_eq!(server().receive(&frame(Kind::WindowUpdate, 0, 0, &[0; 4])), Err(Violation::ZERO_INCREMENT));
    let bad = Setting::Other(0x4, 1 << 31).encode();
    assert_eq!(server().receive(&frame(Kind::Settings, 0, 0, &bad)), Err(Violation::WINDOW_OVERFLOW));
    // More than the window of a stream costs the stream.
    let mut pair = Pair::new();
    let (near, far) = pair.tunnel();
    let piece = frame(Kind::Data, 0, near.id(), &[0; DEFAULT_MAX_FRAME as usize]);
    for _ in 0..=16 {
        pair.server.receive(&piece).unwrap();
    }
    let failed = pair.server.poll_failed(far, Waker::noop());
    assert_eq!(failed, Poll::Ready(crate::error::StreamError::Reset(ResetCode::FLOW_CONTROL_ERROR)));
    // And what goes on coming for it, the connection.
    assert_eq!(pair.server.receive(&piece), Err(Violation::WINDOW_EXCEEDED));
}

/// A peer that causes answers and reads none: what waits for it is bounded, even though each while fills its allowances again.
#[test]
fn answers_that_nobody_reads() {
    let mut server = server();
    let pings = frame(Kind::Ping, 0, 0, &[0; 8]).repeat(900);
    let violation = (0..1000).find_map(|_| {
        server.refill_limits();
        server.receive(&pings).err()
    });
    assert_eq!(violation, Some(Violation::ANSWERS_UNREAD));
    assert!(server.output().len() < (1 << 20) + (64 << 10), "{}", server.output().len());
}

#[test]
fn frames_for_streams_that_ended() {
    let mut pair = Pair::new();
    let (near, far) = pair.tunnel();
    let id = near.id();
    // What crossed our reset is within its window, and costs nothing.
    pair.server.reset(far, ResetCode::CANCEL);
    for _ in 0..200_000 {
        pair.server.receive(&frame(Kind::Data, 0, id, b"x")).unwrap();
    }
    drain(&mut pair.server);
    // What ended in order long ago is over.
    let (near, far) = pair.tunnel();
    pair.client.finish(near).unwrap();
    pair.server.finish(far).unwrap();
    pair.settle();
    let (violation, count) = attack(&mut pair.server, |_| frame(Kind::WindowUpdate, 0, near.id(), &[0, 1, 0, 0]));
    assert_eq!(violation, Violation::LATE_FRAMES);
    assert!(count >= 60_000, "{count}");
}

#[rstest]
#[case::no_settings_first(frame(Kind::Ping, 0, 0, &[0; 8]), Violation::UNEXPECTED_FRAME)]
#[case::http_1(b"GET / HTTP/1.1\r\n\r\n".to_vec(), Violation::PREFACE)]
fn a_wrong_beginning(#[case] bytes: Vec<u8>, #[case] violation: Violation) {
    let mut server = Connection::new(Role::Server, &ConnectionSettings::default());
    let preface: &[u8] = if violation == Violation::PREFACE { &[] } else { frame::PREFACE };
    assert_eq!(server.receive(&[preface, &bytes].concat()), Err(violation));
}

#[rstest]
#[case::push(frame(Kind::PushPromise, END_HEADERS, 1, &[0; 4]), Violation::UNEXPECTED_FRAME)]
#[case::data_for_nothing(frame(Kind::Data, 0, 1, b"x"), Violation::UNEXPECTED_FRAME)]
#[case::data_for_the_connection(frame(Kind::Data, 0, 0, b"x"), Violation::UNEXPECTED_FRAME)]
#[case::even_stream(frame(Kind::Headers, END_HEADERS, 2, &[0x82]), Violation::UNEXPECTED_FRAME)]
#[case::lone_continuation(frame(Kind::Continuation, END_HEADERS, 1, &[]), Violation::UNEXPECTED_FRAME)]
#[case::data_within_a_block([frame(Kind::Headers, 0, 1, &[]), frame(Kind::Data, END_STREAM, 1, &[])].concat(), Violation::UNEXPECTED_FRAME)]
#[case::short_ping(frame(Kind::Ping, 0, 0, &[0; 7]), Violation::FRAME_SIZE)]
#[case::odd_settings(frame(Kind::Settings, 0, 0, &[0; 5]), Violation::FRAME_SIZE)]
#[case::many_settings(frame(Kind::Settings, 0, 0, &[0; 6 * 65]), Violation::SETTINGS_FLOOD)]
#[case::too_large(FrameHeader { length: (256 << 10) + 1, kind: Kind::Data, flags: 0, stream: 1 }.encode().to_vec(), Violation::FRAME_SIZE)]
#[case::padding(frame(Kind::Headers, END_HEADERS | frame::PADDED, 1, &[9, 0x82]), Violation::PADDING)]
#[case::hpack(frame(Kind::Headers, END_HEADERS, 1, &[0xff]), Violation::HEADER_BLOCK)]
fn what_no_peer_may_send(#[case] bytes: Vec<u8>, #[case] violation: Violation) {
    assert_eq!(server().receive(&bytes), Err(violation));
}
