//! The output as a peer reads it.

use std::task::Poll;

use proptest::prelude::*;

use super::super::frame::{FrameHeader, HEADER_LENGTH, Kind, PADDED};
use super::{END_STREAM, MOST_DATA, Output};

/// The frames in some bytes: stream, flags and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u32, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LENGTH>() {
        let header = FrameHeader::decode(*header);
        let (payload, rest) = rest.split_at(header.length as usize);
        frames.push((header.stream, header.flags, payload.to_vec()));
        bytes = rest;
    }
    frames
}

#[test]
fn small_pieces_of_a_stream_join_until_they_leave() {
    let mut output = Output::default();
    for (stream, data) in [(1, b"a"), (1, b"b"), (3, b"c"), (1, b"d")] {
        output.data(stream, data, 100);
    }
    output.end_stream(1);
    output.data(1, b"x", 100);
    output.end_stream(3);
    let expected = [(1, 0, b"ab".to_vec()), (3, 0, b"c".to_vec()), (1, END_STREAM, b"d".to_vec())];
    let seen = frames(output.waiting());
    assert_eq!(seen[..3], expected);
    assert_eq!(seen[3..], [(1, 0, b"x".to_vec()), (3, END_STREAM, vec![])]);
}

#[test]
fn a_frame_that_has_begun_to_leave_takes_no_more() {
    let mut output = Output::default();
    output.data(1, b"abc", 100);
    let mut wire = output.waiting()[..4].to_vec();
    output.sent(4);
    output.data(1, b"def", 100);
    wire.extend_from_slice(output.waiting());
    assert_eq!(frames(&wire), [(1, 0, b"abc".to_vec()), (1, 0, b"def".to_vec())]);
}

#[derive(Debug, Clone)]
enum Step {
    Data(u32, usize),
    Fill(u32, usize, usize),
    Control,
    End(u32),
    Sent(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let stream = prop::sample::select(vec![1_u32, 3, 5]);
    prop_oneof![
        (stream.clone(), 0..40_000_usize).prop_map(|(stream, count)| Step::Data(stream, count)),
        (stream.clone(), 1..300_000_usize, 0..300_000_usize).prop_map(|(s, room, count)| Step::Fill(s, room, count)),
        Just(Step::Control),
        stream.prop_map(Step::End),
        (0..100_000_usize).prop_map(Step::Sent),
    ]
}

proptest! {
    /// Whatever is put in and taken out, the wire has whole frames, and each stream's bytes in order.
    #[test]
    fn the_wire_is_whole(steps in prop::collection::vec(any_step(), 1..40)) {
        let (mut output, mut wire) = (Output::default(), Vec::new());
        let (mut expected, mut next, mut ends) = ([const { Vec::new() }; 6], 0_u8, 0);
        for step in steps {
            match step {
                Step::Data(stream, count) => {
                    let data: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    output.data(stream, &data, MOST_DATA);
                    expected[stream as usize].extend(data);
                }
                Step::Fill(stream, room, count) => {
                    let into = &mut expected[stream as usize];
                    let result = output.fill(stream, room, MOST_DATA, |slots| {
                        let mut left = count.min(slots.iter().map(|slot| slot.len()).sum());
                        assert!(slots.iter().map(|slot| slot.len()).sum::<usize>() <= room);
                        let filled = left;
                        for byte in slots.iter_mut().flat_map(|slot| slot.iter_mut()) {
                            if left == 0 { break }
                            next = next.wrapping_add(1);
                            *byte = next;
                            into.push(next);
                            left -= 1;
                        }
                        Poll::Ready(Ok(filled))
                    });
                    prop_assert!(matches!(result, Poll::Ready(Ok(_))));
                }
                Step::Control => output.frame(Kind::Ping, PADDED, 0, &[7; 8]),
                Step::End(stream) => { output.end_stream(stream); ends += 1; }
                Step::Sent(count) => {
                    let count = count.min(output.len());
                    wire.extend_from_slice(&output.waiting()[..count]);
                    output.sent(count);
                }
            }
        }
        wire.extend_from_slice(output.waiting());
        let mut seen = [const { Vec::new() }; 6];
        let mut seen_ends = 0;
        for (stream, flags, payload) in frames(&wire) {
            prop_assert!(payload.len() <= MOST_DATA);
            seen_ends += usize::from(flags == END_STREAM);
            if stream > 0 { seen[stream as usize].extend(payload) } else { prop_assert_eq!(payload, vec![7; 8]) }
        }
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(seen_ends, ends);
    }
}
