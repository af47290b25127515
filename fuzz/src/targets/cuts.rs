//! The framer alone: any bytes, in any cuts, to either end, give the same verdict, requests that are there, and a bounded answer.

use weft_hbone::ConnectionSettings;
use weft_hbone::http2::{Connection, Role, Violation};

use super::outcome::Outcome;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What an end says by itself, and what it may answer to each byte, on average.
const OWN_WORDS: usize = 4096;
const ANSWER_PER_BYTE: usize = 4;

#[derive(Debug, PartialEq)]
struct Heard {
    requests: Vec<String>,
    verdict: Result<(), Violation>,
    answered: usize,
}

/// The first byte chooses the end, the second how the rest is cut.
pub(super) fn cuts(bytes: &[u8]) -> Outcome {
    let Some(([role, cut], rest)) = bytes.split_first_chunk::<2>() else { return Outcome::of(&"too short") };
    let (role, preface) = if role % 2 == 0 { (Role::Server, PREFACE) } else { (Role::Client, &[][..]) };
    let input = [preface, rest].concat();
    let whole = hear(role, &input, input.len());
    let pieces = hear(role, &input, 1 + usize::from(*cut));
    assert_eq!(whole.verdict, pieces.verdict, "the same, however it is cut");
    // A request that is withdrawn in the same read is never seen; nothing is seen that is not there when each byte is its own.
    assert!(whole.requests.iter().all(|request| pieces.requests.contains(request)), "{whole:?}, {pieces:?}");
    for heard in [&whole, &pieces] {
        let most = OWN_WORDS + ANSWER_PER_BYTE * input.len();
        assert!(heard.answered <= most, "{} bytes for {}", heard.answered, input.len());
    }
    let past = role == Role::Server && !whole.requests.is_empty() || role == Role::Client && whole.verdict.is_ok();
    Outcome::exactly(&whole.verdict)
        .past(past)
        .and(Outcome::exactly(&(whole.requests.len().min(4), whole.answered.min(256) / 8)))
}

fn hear(role: Role, input: &[u8], piece: usize) -> Heard {
    let mut connection = Connection::new(role, &ConnectionSettings::default());
    let mut heard = Heard { requests: Vec::new(), verdict: Ok(()), answered: 0 };
    for bytes in input.chunks(piece.max(1)) {
        heard.verdict = connection.receive(bytes);
        while let Some((key, list)) = connection.next_request() {
            heard.requests.push(format!("{} {list:?}", key.id()));
        }
        let answer = connection.output().len();
        connection.sent(answer);
        heard.answered += answer;
        if heard.verdict.is_err() {
            break;
        }
    }
    heard
}
