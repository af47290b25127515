//! One question per function, asked from inside a pod.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::server::abort;
use crate::netns::in_netns;

/// Reads and writes of these clients give up after this: far longer than any answer of a test takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client finds at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connected, and a byte came back.
    Answered(String),
    /// No connection: refused by a reset in answer to the SYN.
    Refused,
    /// Connected, then reset (how a capturing agent refuses).
    Reset,
    /// Connected, then ended orderly without a byte.
    Closed,
    /// Connected, and nothing came until the deadline.
    Silent,
    /// No connection until the deadline.
    TimedOut,
    /// No route, or forbidden on the way.
    Unreachable,
}

/// Connects from `netns`; reads and writes are limited to 10 s.
///
/// # Errors
/// Those of connect(2); the namespace is not there (`NotFound`).
pub fn connect(netns: &str, address: SocketAddr, deadline: Duration) -> Result<TcpStream> {
    let stream = in_netns(netns, || TcpStream::connect_timeout(&address, deadline))
        .map_err(|error| Error::new(ErrorKind::NotFound, format!("{error:#}")))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `text` and reads as many bytes back.
///
/// # Errors
/// Connection errors; `InvalidData` when something else comes back.
pub fn echo(mut stream: &TcpStream, text: &[u8]) -> Result<()> {
    let mut answer = vec![0; text.len()];
    // Longer texts than the sockets' buffers need both directions at once.
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || { stream }.write_all(text));
        stream.read_exact(&mut answer)?;
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if answer == text { Ok(()) } else { Err(Error::new(ErrorKind::InvalidData, "the echo differs from what was sent")) }
}

/// Reads to the orderly end.
///
/// # Errors
/// `ConnectionReset` when it ended otherwise.
pub fn read_until_end(mut stream: &TcpStream) -> Result<String> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Asks a `PeerAddress` server which address it sees.
///
/// # Errors
/// Connection errors; `InvalidData` when the answer is no address.
pub fn who_am_i(netns: &str, address: SocketAddr) -> Result<SocketAddr> {
    let text = read_until_end(&connect(netns, address, PATIENCE)?)?;
    text.parse().map_err(|_| Error::new(ErrorKind::InvalidData, format!("no address: {text:?}")))
}

/// Waits for the words of a server that speaks first; how long they took from the start of connect.
///
/// # Errors
/// Connection errors.
pub fn greeting(netns: &str, address: SocketAddr, length: usize) -> Result<(String, Duration)> {
    let start = Instant::now();
    let mut stream = connect(netns, address, PATIENCE)?;
    let mut words = vec![0; length];
    stream.read_exact(&mut words)?;
    Ok((String::from_utf8_lossy(&words).into_owned(), start.elapsed()))
}

/// Sends `bytes` bytes to a `Count` server, ends its own direction, and then reads the answer in the other one.
///
/// # Errors
/// Connection errors; `InvalidData` when the server counted something else.
pub fn half_close(netns: &str, address: SocketAddr, bytes: usize) -> Result<()> {
    let mut stream = connect(netns, address, PATIENCE)?;
    let data: Vec<u8> = (0..bytes).map(|index| u8::try_from(index % 251).unwrap_or(0)).collect();
    stream.write_all(&data)?;
    stream.shutdown(Shutdown::Write)?;
    let expected = format!("{bytes} {}", data.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    let answer = read_until_end(&stream)?;
    if answer == expected {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::InvalidData, format!("expected {expected:?}, the server answered {answer:?}")))
    }
}

/// Ends a connection with RST.
pub fn reset(stream: TcpStream) {
    abort(&stream);
}

/// What is at `address`, seen from `netns`? Connects, sends one byte and waits for an answer.
#[must_use]
pub fn outcome(netns: &str, address: SocketAddr, deadline: Duration) -> Outcome {
    let asked = connect(netns, address, deadline).map_err(|error| of_connect(&error)).and_then(|mut stream| {
        let mut buffer = [0; 1024];
        let answer = stream
            .set_read_timeout(Some(deadline))
            .and_then(|()| stream.write_all(b"?"))
            .and_then(|()| stream.read(&mut buffer));
        match answer {
            Ok(0) => Err(Outcome::Closed),
            Ok(length) => Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) => Err(of_stream(&error)),
        }
    });
    asked.map_or_else(|outcome| outcome, Outcome::Answered)
}

fn of_connect(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::TimedOut,
        ErrorKind::ConnectionReset => Outcome::Reset,
        _ => Outcome::Unreachable,
    }
}

fn of_stream(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silent,
        _ => Outcome::Reset,
    }
}
