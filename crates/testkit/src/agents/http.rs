//! One HTTP GET from inside a namespace, for admin and health ports. HTTP/1.0: the answer ends with the connection.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::traffic::connect;

/// An admin port answers in milliseconds; a stuck one must not stop a test.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `http://ADDRESS/PATH` from `netns`: status and body.
///
/// # Errors
/// No connection, or no HTTP answer.
pub fn get(netns: &str, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = connect(netns, address, PATIENCE).with_context(|| format!("{address} in {netns}"))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer from {address}: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("a status line")?;
    Ok((status, body.to_owned()))
}

/// As [`get`], and the status must be 200.
///
/// # Errors
/// As [`get`]; another status, with the body.
pub fn get_ok(netns: &str, address: SocketAddr, path: &str) -> Result<String> {
    let (status, body) = get(netns, address, path)?;
    ensure!(status == 200, "{address}{path}: {status} {body}");
    Ok(body)
}
