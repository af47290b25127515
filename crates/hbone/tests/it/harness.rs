//! What the tests share: a connection over a pipe, servers that answer in a given way, deadlines.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use weft_hbone::{
    Authority, ClientConnection, ConnectHead, ConnectionEnd, ConnectionSettings, Incoming, Malformed, Tunnel, client,
    server,
};

/// Nothing here takes a second on a quiet machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Bytes in flight in a test's pipe.
pub(crate) const PIPE: usize = 256 << 10;

/// One end of a connection in memory.
pub(crate) type Pipe = BufReader<DuplexStream>;

/// Both ends of one, with so many bytes in flight.
pub(crate) fn pipe(size: usize) -> (Pipe, Pipe) {
    let (near, far) = duplex(size);
    (BufReader::with_capacity(64 << 10, near), BufReader::with_capacity(64 << 10, far))
}

/// Fails the test instead of hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("not in time")
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn head() -> ConnectHead {
    ConnectHead::new(Authority::Address("10.0.0.7:8080".parse().unwrap()))
}

/// Starts a client on one end of a pipe; its driver runs until the connection ends.
pub(crate) async fn start_client(io: Pipe) -> (ClientConnection, JoinHandle<ConnectionEnd>) {
    start_client_with(io, ConnectionSettings::default()).await
}

pub(crate) async fn start_client_with(
    io: Pipe,
    settings: ConnectionSettings,
) -> (ClientConnection, JoinHandle<ConnectionEnd>) {
    let (connection, driver) = within(client::handshake(io, &settings)).await.unwrap();
    (connection, spawn_local(driver))
}

/// Serves one connection; every request gets a task with `handle`.
pub(crate) fn start_server<H, F>(io: Pipe, handle: H) -> JoinHandle<(ConnectionEnd, Vec<Malformed>)>
where
    H: Fn(Incoming) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    start_server_until(io, handle, std::future::pending())
}

/// The same; drains when `drain` is ready.
pub(crate) fn start_server_until<H, F>(
    io: Pipe,
    handle: H,
    drain: impl Future<Output = ()> + 'static,
) -> JoinHandle<(ConnectionEnd, Vec<Malformed>)>
where
    H: Fn(Incoming) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    spawn_local(async move {
        let mut connection = match server::handshake(io, &ConnectionSettings::default()).await {
            Ok(connection) => connection,
            Err(end) => return (end, Vec::new()),
        };
        let mut malformed = Vec::new();
        let (mut drain, mut draining) = (std::pin::pin!(drain), false);
        loop {
            tokio::select! {
                incoming = connection.accept() => match incoming {
                    Some(Ok(incoming)) => { spawn_local(handle(incoming)); }
                    Some(Err(error)) => malformed.push(error),
                    None => break,
                },
                () = &mut drain, if !draining => { connection.drain(); draining = true; }
            }
        }
        (connection.end().unwrap().clone(), malformed)
    })
}

/// Accepts and sends everything back.
pub(crate) async fn echo(incoming: Incoming) {
    let mut tunnel = incoming.accept(None).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = tunnel.read(&mut buffer).await {
        tunnel.write_all(&buffer[..count]).await.unwrap();
        tunnel.flush().await.unwrap();
    }
    let _ = tunnel.shutdown().await;
}

/// A client whose server treats every tunnel with `handle`.
pub(crate) async fn connected<H, F>(handle: H) -> ClientConnection
where
    H: Fn(Incoming) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let (near, far) = pipe(PIPE);
    start_server(far, handle);
    start_client(near).await.0
}

/// Two ends of one tunnel.
pub(crate) async fn tunnel_pair() -> (Tunnel, Tunnel) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let connection = connected(move |incoming| {
        let sender = sender.clone();
        async move { sender.send(incoming.accept(None).unwrap()).unwrap() }
    })
    .await;
    let near = within(connection.open(&head())).await.unwrap();
    (near, within(receiver.recv()).await.unwrap())
}

/// Two ends of one TCP connection over loopback.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

/// Writes, then reads as many bytes back and compares.
pub(crate) async fn ping(tunnel: &mut Tunnel, text: &[u8]) {
    tunnel.write_all(text).await.unwrap();
    let mut answer = vec![0; text.len()];
    tunnel.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, text);
}
