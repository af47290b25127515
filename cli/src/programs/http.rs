//! One question and its answer by HTTP, over any connection. Version 1.0: the answer is one piece, and ends the connection.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longer than the five seconds after which a stuck section answers with an error of its own.
pub(super) const TIMEOUT: Duration = Duration::from_secs(8);
/// The longest answer that is read, bytes: the pods of a mesh of 100,000 have 50 MB.
const LONGEST: usize = 256 << 20;
/// The longest head of an answer, bytes; ours have 150.
const LONGEST_HEAD: usize = 16 << 10;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// There is no answer.
#[derive(Debug, Error)]
pub(super) enum NoAnswer {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("the connection ended before an answer")]
    Nothing,
    #[error("the answer ended early: {held} of {length} bytes")]
    Short { held: usize, length: usize },
    #[error("the answer is no HTTP, or too long")]
    Strange,
}

/// Asks.
pub(super) async fn get<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> Result<Answer, NoAnswer> {
    timeout(TIMEOUT, exchange(stream, path)).await.map_err(|_late| NoAnswer::Late)?
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> Result<Answer, NoAnswer> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        let ended = stream.read_buf(&mut bytes).await? == 0;
        if let Some(answer) = read(&bytes, ended)? {
            return Ok(answer);
        }
    }
}

/// The answer, once it is whole. Where its length is said nobody waits for the end of the connection, which some proxies swallow.
fn read(bytes: &[u8], ended: bool) -> Result<Option<Answer>, NoAnswer> {
    let Some(head) = bytes.windows(4).take(LONGEST_HEAD).position(|window| window == b"\r\n\r\n") else {
        return match (bytes.len(), ended) {
            (0, true) => Err(NoAnswer::Nothing),
            (length, _) if ended || length > LONGEST_HEAD => Err(NoAnswer::Strange),
            _ => Ok(None),
        };
    };
    let body = &bytes[head + 4..];
    let head = std::str::from_utf8(&bytes[..head]).map_err(|_| NoAnswer::Strange)?;
    let mut lines = head.split("\r\n");
    let status = status(lines.next().unwrap_or_default()).ok_or(NoAnswer::Strange)?;
    let length = lines.find_map(length);
    match length {
        _ if body.len() > LONGEST => Err(NoAnswer::Strange),
        Some(length) if body.len() >= length => Ok(Some(Answer { status, body: body[..length].to_vec() })),
        Some(length) if ended => Err(NoAnswer::Short { held: body.len(), length }),
        None if ended => Ok(Some(Answer { status, body: body.to_vec() })),
        _ => Ok(None),
    }
}

fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

fn length(line: &str) -> Option<usize> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{Answer, get, read};

    const OK: &str = "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody";

    #[rstest]
    #[case::nothing_yet("", false, Ok(None))]
    #[case::half_a_head("HTTP/1.0 200 OK\r\nConte", false, Ok(None))]
    #[case::half_a_body("HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nbo", false, Ok(None))]
    #[case::whole(OK, false, Ok(Some((200, "body"))))]
    #[case::without_length("HTTP/1.1 404 Not Found\r\n\r\nno", true, Ok(Some((404, "no"))))]
    #[case::without_length_so_far("HTTP/1.1 404 Not Found\r\n\r\nno", false, Ok(None))]
    #[case::empty("", true, Err("ended before an answer"))]
    #[case::cut("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbo", true, Err("2 of 4 bytes"))]
    #[case::cut_head("HTTP/1.0 200 OK\r\n", true, Err("no HTTP"))]
    #[case::another_protocol("SSH-2.0-OpenSSH\r\n\r\n", false, Err("no HTTP"))]
    fn when_an_answer_is_whole(
        #[case] bytes: &str,
        #[case] ended: bool,
        #[case] expected: Result<Option<(u16, &str)>, &str>,
    ) {
        match (read(bytes.as_bytes(), ended), expected) {
            (Ok(found), Ok(expected)) => {
                let expected = expected.map(|(status, body)| Answer { status, body: body.as_bytes().to_vec() });
                assert_eq!(found, expected);
            }
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[tokio::test]
    async fn a_question_goes_over_any_connection_and_does_not_wait_for_its_end() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let asked = tokio::spawn(async move {
            let mut question = vec![0; "GET /debug/pods HTTP/1.0\r\nHost: localhost\r\n\r\n".len()];
            far.read_exact(&mut question).await.unwrap();
            far.write_all(OK.as_bytes()).await.unwrap();
            (far, String::from_utf8(question).unwrap())
        });
        assert_eq!(get(&mut near, "/debug/pods").await.unwrap().body, b"body");
        let (_open, question) = asked.await.unwrap();
        assert!(question.starts_with("GET /debug/pods HTTP/1.0\r\n"), "{question}");
    }
}
