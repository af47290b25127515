//! What the load says on a connection: one request, one answer, both of known length. Pure.

use std::sync::LazyLock;

/// Bytes of an answer's body: the size that mesh benchmarks commonly use (Istio's own: 1 KB).
pub const BODY: usize = 1024;
/// Bytes of an echoed message.
pub const MESSAGE: usize = 64;

/// One exchange, as a client sees it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Sent.
    pub request: Vec<u8>,
    /// Bytes that come back.
    pub answer: usize,
}

/// An answer that leaves the connection open.
static KEPT: LazyLock<Vec<u8>> = LazyLock::new(|| answer("keep-alive"));
/// An answer behind which the server closes.
static LAST: LazyLock<Vec<u8>> = LazyLock::new(|| answer("close"));

/// The end of a request's head.
const END: &[u8] = b"\r\n\r\n";
/// In the request that wants to be the last one.
const CLOSE: &[u8] = b"Connection: close\r\n";

impl Exchange {
    /// An HTTP request on a connection that stays open.
    #[must_use]
    pub fn kept() -> Self {
        Self { request: request(""), answer: KEPT.len() }
    }

    /// An HTTP request behind whose answer the server closes.
    #[must_use]
    pub fn last() -> Self {
        Self { request: request("Connection: close\r\n"), answer: LAST.len() }
    }

    /// A message that comes back as it is.
    #[must_use]
    pub fn echo() -> Self {
        Self { request: vec![b'e'; MESSAGE], answer: MESSAGE }
    }
}

fn request(line: &str) -> Vec<u8> {
    format!("GET /api/items/42 HTTP/1.1\r\nHost: server\r\nUser-Agent: weft-bench\r\nAccept: */*\r\n{line}\r\n")
        .into_bytes()
}

fn answer(connection: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: weft-bench\r\nContent-Type: text/plain\r\nContent-Length: {BODY}\r\nConnection: {connection}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + BODY, b'.');
    bytes
}

/// What a server of requests does with what it has read.
#[derive(Debug, PartialEq, Eq)]
pub struct Replies {
    /// Bytes of complete requests, to be forgotten.
    pub taken: usize,
    /// Answers that leave the connection open.
    pub kept: usize,
    /// One more answer, and then the end.
    pub last: bool,
}

/// Finds complete requests.
#[must_use]
pub fn replies(read: &[u8]) -> Replies {
    let mut found = Replies { taken: 0, kept: 0, last: false };
    while let Some(end) = position(&read[found.taken..], END) {
        let head = &read[found.taken..found.taken + end + END.len()];
        found.taken += head.len();
        if position(head, CLOSE).is_some() {
            found.last = true;
            break;
        }
        found.kept += 1;
    }
    found
}

/// The words of an answer.
#[must_use]
pub fn answer_bytes(last: bool) -> &'static [u8] {
    if last { &LAST } else { &KEPT }
}

/// Bytes of the answer that `read` begins with, as soon as its head is whole.
#[must_use]
pub fn whole_length(read: &[u8]) -> Option<usize> {
    let head = position(read, END)? + END.len();
    let text = std::str::from_utf8(&read[..head]).ok()?;
    let named = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").map(|rest| rest.trim().parse());
    Some(head + text.lines().find_map(named)?.ok().unwrap_or(0_usize))
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found_whole_only() {
        let (kept, last) = (Exchange::kept().request, Exchange::last().request);
        assert_eq!(replies(&kept), Replies { taken: kept.len(), kept: 1, last: false });
        assert_eq!(replies(&kept[..kept.len() - 1]), Replies { taken: 0, kept: 0, last: false });
        assert_eq!(replies(&[&kept[..], &kept[..7]].concat()), Replies { taken: kept.len(), kept: 1, last: false });
        assert_eq!(replies(&last), Replies { taken: last.len(), kept: 0, last: true });
        assert_eq!(Exchange::last().answer, answer_bytes(true).len());
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let answer = answer_bytes(false);
        assert_eq!(whole_length(answer), Some(answer.len()));
        assert_eq!(whole_length(&answer[..answer.len() - 1]), Some(answer.len()));
        assert_eq!(whole_length(&answer[..40]), None);
    }
}
