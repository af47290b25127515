//! As much of RESP2 (redis.io/docs/reference/protocol-spec) as a cart needs: commands as arrays of bulk strings,
//! simple, bulk, integer and error replies.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::Mutex;

use super::caller::LIFE;
use super::lines::Lines;

/// Longest value taken, bytes: a cart is some words.
const LONGEST: usize = 1 << 20;

/// Connections to one Redis, kept or new for each command.
#[derive(Debug)]
pub(super) struct Redis {
    address: SocketAddr,
    keep_alive: bool,
    idle: Mutex<Vec<(Instant, Lines)>>,
}

impl Redis {
    pub(super) fn new(address: SocketAddr, keep_alive: bool) -> Self {
        Self { address, keep_alive, idle: Mutex::default() }
    }

    /// Runs a command; `None` is Redis' nil.
    pub(super) async fn command(&self, words: &[&str]) -> Result<Option<String>> {
        let kept = {
            let mut idle = self.idle.lock().await;
            idle.retain(|(since, _)| since.elapsed() < LIFE);
            idle.pop()
        };
        let (since, mut lines) = match kept {
            Some(kept) => kept,
            None => (Instant::now(), Lines::connect(self.address).await?),
        };
        lines.send(&encode(words)).await?;
        let reply = reply(&mut lines).await?;
        if self.keep_alive {
            self.idle.lock().await.push((since, lines));
        }
        Ok(reply)
    }
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text.into_bytes()
}

async fn reply(lines: &mut Lines) -> Result<Option<String>> {
    let line = lines.expect().await?;
    match head(&line)? {
        Head::Value(value) => Ok(value),
        Head::Bulk(length) => {
            let mut bytes = lines.exactly(length + 2).await?;
            ensure!(bytes.ends_with(b"\r\n"), "a bulk string ends with CR LF");
            bytes.truncate(length);
            Ok(Some(String::from_utf8(bytes)?))
        }
    }
}

#[derive(Debug, PartialEq)]
enum Head {
    Value(Option<String>),
    Bulk(usize),
}

fn head(line: &str) -> Result<Head> {
    let Some((kind, rest)) = line.split_at_checked(1) else { bail!("an empty reply") };
    match kind {
        "+" | ":" => Ok(Head::Value(Some(rest.to_owned()))),
        "-" => bail!("redis refuses: {rest}"),
        "$" if rest == "-1" => Ok(Head::Value(None)),
        "$" => {
            let length = rest.parse().with_context(|| format!("length {rest:?}"))?;
            ensure!(length <= LONGEST, "a reply of {length} bytes");
            Ok(Head::Bulk(length))
        }
        _ => bail!("not a reply of RESP2: {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_heads() {
        assert_eq!(encode(&["SET", "a", "xyz"]), b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\nxyz\r\n");
        for (line, expected) in [
            ("+OK", Some(Head::Value(Some("OK".into())))),
            (":7", Some(Head::Value(Some("7".into())))),
            ("$-1", Some(Head::Value(None))),
            ("$12", Some(Head::Bulk(12))),
            ("-ERR no", None),
            ("$x", None),
            ("$99999999999", None),
            ("", None),
            ("HTTP/1.1", None),
        ] {
            assert_eq!(head(line).ok(), expected, "{line}");
        }
    }
}
