//! Dials the application inside its pod, from the client's own address.
//!
//! The source port is an explicit one of a range of our own, not port 0 (`docs/capture.md`): a port in TIME_WAIT is
//! then usable at once, and the port of a live client is never taken. Another path of the kernel may hold the port all the
//! same, which shows as "address in use" or as silence; then the next port is tried, and after some of them any
//! port that the kernel gives.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use weft_model::Reason;

use super::admit::Admission;
use super::proxy_header;
use crate::pods::PodUid;
use crate::worker::failure::Failure;
use crate::worker::shard::Shard;
use crate::worker::sockets::{DialSocket, family_of};

/// Ports that are tried before the kernel chooses. With half of the range in use, four miss one time in 16.
const EXPLICIT_PORTS: usize = 4;

/// What one attempt says about the next.
enum Attempt {
    Connected(TcpStream),
    /// This port will not do.
    PortInUse,
    /// Nobody answered: a dead path, or an application whose queue is full.
    NoAnswer,
    /// Another port makes no difference.
    Failed(Failure),
}

/// Connects to the application of an admitted connection in the pod.
///
/// # Errors
/// [`Reason::ConnectRefused`], [`Reason::ConnectTimeout`], [`Reason::PortsExhausted`], [`Reason::NoDialSockets`] or
/// [`Reason::ConnectFailed`].
pub async fn deliver(shard: &Shard, pod: &PodUid, admission: &Admission) -> Result<TcpStream, Failure> {
    let mut stream = dial(shard, pod, admission.connection.source, admission.application).await?;
    if let Some(announcement) = &admission.announce {
        let written = stream.write_all(&proxy_header::encode(announcement)).await;
        written.map_err(|error| Failure::new(Reason::ConnectFailed, error))?;
    }
    Ok(stream)
}

async fn dial(shard: &Shard, pod: &PodUid, client: IpAddr, application: SocketAddr) -> Result<TcpStream, Failure> {
    let settings = &shard.environment.settings;
    let deadline = Instant::now() + settings.connect_timeout;
    let mut silent = false;
    for _ in 0..EXPLICIT_PORTS {
        match attempt(
            shard,
            pod,
            SocketAddr::new(client, shard.source_port()),
            application,
            settings.application_timeout,
        )
        .await
        {
            Attempt::Connected(stream) => return Ok(stream),
            Attempt::Failed(failure) => return Err(failure),
            Attempt::PortInUse => {}
            Attempt::NoAnswer => silent = true,
        }
    }
    let patience = deadline.saturating_duration_since(Instant::now());
    match attempt(shard, pod, SocketAddr::new(client, 0), application, patience).await {
        Attempt::Connected(stream) => Ok(stream),
        Attempt::Failed(failure) => Err(failure),
        Attempt::PortInUse if !silent => Err(Reason::PortsExhausted.into()),
        Attempt::PortInUse | Attempt::NoAnswer => Err(Failure::new(Reason::ConnectTimeout, application)),
    }
}

async fn attempt(
    shard: &Shard,
    pod: &PodUid,
    from: SocketAddr,
    application: SocketAddr,
    patience: Duration,
) -> Attempt {
    let wait = shard.environment.settings.socket_wait;
    let socket = match shard.sockets.take(pod, family_of(application.ip()), wait).await {
        Ok(socket) => socket,
        Err(reason) => return Attempt::Failed(reason.into()),
    };
    match timeout(patience, connect(socket, from, application)).await {
        Ok(Ok(stream)) => Attempt::Connected(stream),
        Ok(Err(error)) => judge(&error, application),
        Err(_) => Attempt::NoAnswer,
    }
}

async fn connect(socket: DialSocket, from: SocketAddr, application: SocketAddr) -> io::Result<TcpStream> {
    socket.stay_in_the_pod()?;
    // A client of the other family has no address here: the pod's own routes choose one.
    if from.is_ipv4() == application.is_ipv4() {
        socket.bind(from)?;
    }
    socket.connect(application).await
}

fn judge(error: &io::Error, application: SocketAddr) -> Attempt {
    let reason = match error.kind() {
        // EADDRINUSE from bind; EADDRNOTAVAIL from connect: the pair of addresses and ports exists already.
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => return Attempt::PortInUse,
        io::ErrorKind::TimedOut => return Attempt::NoAnswer,
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        _ => Reason::ConnectFailed,
    };
    Attempt::Failed(Failure::new(reason, format!("{application}: {error}")))
}
