//! Questions that pods ask: does it answer, from which address, within what time?

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Outcome, connect, echo, outcome, who_am_i};

use crate::world::MARKER;

/// Nothing of the mesh may take longer than this to answer or to refuse.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection is set up, refused or reset within this; measured: milliseconds. Far below every time-out of the product,
/// so that something that only ends by time-out is found.
pub(crate) const PROMPT: Duration = Duration::from_millis(1500);

/// The address of a pod.
pub(crate) fn at(pod: &Pod, v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(pod.address(v6), port)
}

/// A connection.
pub(crate) fn open(pod: &Pod, to: SocketAddr) -> Result<TcpStream> {
    connect(&pod.netns, to, PATIENCE).with_context(|| format!("{} to {to}", pod.name))
}

/// Sends the marker on an open connection, and it comes back.
pub(crate) fn talk(stream: &TcpStream) -> Result<()> {
    Ok(echo(stream, MARKER.as_bytes())?)
}

/// The marker goes there and comes back, on a connection of its own.
pub(crate) fn answers(pod: &Pod, to: SocketAddr) -> Result<()> {
    talk(&open(pod, to)?).with_context(|| format!("{} asks {to}", pod.name))
}

/// What is there?
pub(crate) fn find(pod: &Pod, to: SocketAddr) -> Outcome {
    outcome(&pod.netns, to, PATIENCE)
}

/// Refused or reset, and at once.
pub(crate) fn refused(pod: &Pod, to: SocketAddr) -> Result<()> {
    let start = Instant::now();
    let found = find(pod, to);
    let took = start.elapsed();
    ensure!(matches!(found, Outcome::Refused | Outcome::Reset), "{} to {to}: {found:?}", pod.name);
    ensure!(took < PROMPT, "{} to {to}: {found:?} only after {took:?}", pod.name);
    Ok(())
}

/// The server at `to` (behaviour `PeerAddress`) sees `expected`.
pub(crate) fn seen_as(pod: &Pod, to: SocketAddr, expected: IpAddr) -> Result<()> {
    let seen = who_am_i(&pod.netns, to).with_context(|| format!("{} to {to}", pod.name))?;
    ensure!(seen.ip().to_canonical() == expected, "{} to {to} is seen as {seen}, not as {expected}", pod.name);
    Ok(())
}
