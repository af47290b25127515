//! The relay between sockets and a tunnel, twice: client app - relay - tunnel - relay - server app, as on two nodes.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use weft_hbone::{
    Buffers, RelayEnd, RelayOutcome, ResetCode, Side, Traffic, Tunnel, relay_tunnel, reset_unless_orderly,
};

use crate::harness::{eventually, tcp_pair, tunnel_pair, within};

/// Two applications and the two relays between them.
pub(crate) struct Chain {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) cancel: oneshot::Sender<&'static str>,
    pub(crate) near: JoinHandle<RelayOutcome<&'static str>>,
    pub(crate) far: JoinHandle<RelayOutcome<&'static str>>,
    pub(crate) traffic: Arc<Traffic>,
}

fn spawn_relay(
    mut app: TcpStream,
    mut tunnel: Tunnel,
    traffic: Arc<Traffic>,
    cancel: oneshot::Receiver<&'static str>,
) -> JoinHandle<RelayOutcome<&'static str>> {
    reset_unless_orderly(&app).unwrap();
    let cancel = async move {
        match cancel.await {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    };
    spawn_local(async move { relay_tunnel(&mut app, &mut tunnel, &Buffers::new(), &traffic, pin!(cancel)).await })
}

async fn chain() -> Chain {
    let (near_tunnel, far_tunnel) = tunnel_pair().await;
    let (client, near_app) = tcp_pair().await;
    let (far_app, server) = tcp_pair().await;
    let (cancel, cancelled) = oneshot::channel();
    let traffic = Arc::<Traffic>::default();
    let near = spawn_relay(near_app, near_tunnel, Arc::clone(&traffic), cancelled);
    let far = spawn_relay(far_app, far_tunnel, Arc::default(), oneshot::channel().1);
    Chain { client, server, cancel, near, far, traffic }
}

async fn is_reset(socket: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    matches!(within(socket.read_to_end(&mut rest)).await, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

fn abort(socket: TcpStream) {
    reset_unless_orderly(&socket).unwrap();
}

#[tokio::test(flavor = "local")]
async fn half_close_both_ways_and_counts() {
    let Chain { mut client, mut server, near, far, traffic, cancel: _cancel } = chain().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    within(server.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    eventually("counted", || traffic.sent() == 8).await;
    assert!(!near.is_finished());
    server.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    within(client.read_exact(&mut answer)).await.unwrap();
    server.write_all(b" and more").await.unwrap();
    server.shutdown().await.unwrap();
    let mut more = Vec::new();
    within(client.read_to_end(&mut more)).await.unwrap();
    assert_eq!((&answer, more.as_slice()), (b"answer", b" and more".as_slice()));
    assert_eq!(within(near).await.unwrap(), RelayOutcome { sent: 8, received: 15, end: RelayEnd::Orderly });
    assert_eq!(within(far).await.unwrap(), RelayOutcome { sent: 15, received: 8, end: RelayEnd::Orderly });
}

#[tokio::test(flavor = "local")]
async fn the_server_may_end_first() {
    let Chain { mut client, mut server, near, far, cancel: _cancel, .. } = chain().await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut bye = Vec::new();
    within(client.read_to_end(&mut bye)).await.unwrap();
    assert_eq!(bye, b"bye");
    client.write_all(b"still talking").await.unwrap();
    client.shutdown().await.unwrap();
    let mut talk = Vec::new();
    within(server.read_to_end(&mut talk)).await.unwrap();
    assert_eq!(talk, b"still talking");
    assert_eq!(within(near).await.unwrap().end, RelayEnd::Orderly);
    assert_eq!(within(far).await.unwrap().end, RelayEnd::Orderly);
}

#[tokio::test(flavor = "local")]
async fn a_reset_of_the_client_reaches_the_server() {
    let Chain { client, mut server, near, far, cancel: _cancel, .. } = chain().await;
    abort(client);
    assert!(is_reset(&mut server).await);
    assert_eq!(within(near).await.unwrap().end, RelayEnd::ResetBy(Side::App));
    assert_eq!(within(far).await.unwrap().end, RelayEnd::ResetBy(Side::Peer));
}

#[tokio::test(flavor = "local")]
async fn a_reset_of_the_server_reaches_the_client() {
    let Chain { mut client, server, near, far, cancel: _cancel, .. } = chain().await;
    abort(server);
    assert!(is_reset(&mut client).await);
    assert_eq!(within(near).await.unwrap().end, RelayEnd::ResetBy(Side::Peer));
    assert_eq!(within(far).await.unwrap().end, RelayEnd::ResetBy(Side::App));
}

#[tokio::test(flavor = "local")]
async fn a_reset_after_the_own_fin_is_seen_though_nobody_reads_or_writes() {
    let Chain { mut client, mut server, near, far, cancel: _cancel, .. } = chain().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    within(server.read_to_end(&mut question)).await.unwrap();
    abort(client);
    assert_eq!(within(near).await.unwrap().end, RelayEnd::ResetBy(Side::App));
    assert_eq!(within(far).await.unwrap().end, RelayEnd::ResetBy(Side::Peer));
    // Behind a FIN a RST shows only to writers.
    assert!(within(server.write_all(b"answer")).await.is_err());
}

/// A server that answers and closes without reading: Linux resets its connection, and the answer must arrive before that.
#[tokio::test(flavor = "local")]
async fn the_last_words_before_a_reset_arrive() {
    let Chain { mut client, mut server, near, far, cancel: _cancel, .. } = chain().await;
    client.write_all(&vec![1; 100_000]).await.unwrap();
    // Something has arrived, and stays unread. (`readable` may be ready for nothing.)
    server.peek(&mut [0; 1]).await.unwrap();
    server.write_all(b"413 too large").await.unwrap();
    drop(server);
    let mut words = [0; 13];
    within(client.read_exact(&mut words)).await.unwrap();
    assert_eq!(&words, b"413 too large");
    assert!(is_reset(&mut client).await);
    assert_eq!(within(far).await.unwrap().end, RelayEnd::ResetBy(Side::App));
    assert_eq!(within(near).await.unwrap().end, RelayEnd::ResetBy(Side::Peer));
}

#[tokio::test(flavor = "local")]
async fn cancelling_resets_both_sides() {
    let Chain { mut client, mut server, cancel, near, far, .. } = chain().await;
    client.write_all(b"x").await.unwrap();
    within(server.read_u8()).await.unwrap();
    cancel.send("policy changed").unwrap();
    assert_eq!(within(near).await.unwrap().end, RelayEnd::Cancelled("policy changed"));
    assert!(is_reset(&mut client).await);
    assert!(is_reset(&mut server).await);
    assert_eq!(within(far).await.unwrap().end, RelayEnd::ResetBy(Side::Peer));
}

#[tokio::test(flavor = "local")]
async fn a_dropped_relay_is_a_reset_on_both_sides() {
    let Chain { mut client, mut server, near, cancel: _cancel, .. } = chain().await;
    client.write_all(b"x").await.unwrap();
    within(server.read_u8()).await.unwrap();
    near.abort();
    assert!(is_reset(&mut client).await);
    assert!(is_reset(&mut server).await);
}

#[tokio::test(flavor = "local")]
async fn rst_no_error_is_an_end_only_behind_a_complete_answer() {
    for complete in [true, false] {
        let (near_tunnel, mut far_tunnel) = tunnel_pair().await;
        let (mut client, near_app) = tcp_pair().await;
        let near = spawn_relay(near_app, near_tunnel, Arc::default(), oneshot::channel().1);
        far_tunnel.write_all(b"answer").await.unwrap();
        far_tunnel.flush().await.unwrap();
        if complete {
            // The library's server then says NO_ERROR when the stream is dropped.
            far_tunnel.shutdown().await.unwrap();
        } else {
            let mut answer = [0; 6];
            within(client.read_exact(&mut answer)).await.unwrap();
            far_tunnel.reset(ResetCode::NO_ERROR);
        }
        drop(far_tunnel);
        let end = within(near).await.unwrap().end;
        if complete {
            let mut answer = Vec::new();
            within(client.read_to_end(&mut answer)).await.unwrap();
            assert_eq!((answer.as_slice(), end), (b"answer".as_slice(), RelayEnd::Orderly));
        } else {
            assert!(is_reset(&mut client).await);
            assert_eq!(end, RelayEnd::ResetBy(Side::Peer));
        }
    }
}

/// After a FIN the socket is readable for ever: a relay that waits for that would be polled without end.
#[tokio::test(flavor = "local")]
async fn a_half_closed_relay_rests() {
    let (mut near_tunnel, _far_tunnel) = tunnel_pair().await;
    let (mut client, mut near_app) = tcp_pair().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    spawn_local(async move {
        let (buffers, traffic) = (Buffers::new(), Traffic::default());
        let never = std::future::pending::<()>();
        let mut relay = pin!(relay_tunnel(&mut near_app, &mut near_tunnel, &buffers, &traffic, never));
        std::future::poll_fn(|cx| -> Poll<()> {
            counted.fetch_add(1, Ordering::Relaxed);
            relay.as_mut().poll(cx).map(|_| ())
        })
        .await;
    });
    client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = polls.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = polls.load(Ordering::Relaxed);
    assert!(before > 0 && after - before <= 2, "polled {} times while nothing happened", after - before);
}

/// A block whose content depends on its place, so that loss, repetition and order all show.
fn block(number: u64) -> Vec<u8> {
    let mut data: Vec<u8> = (0..=250).cycle().take(64 << 10).collect();
    data[..8].copy_from_slice(&number.to_be_bytes());
    data
}

async fn send(mut socket: impl tokio::io::AsyncWrite + Unpin, blocks: u64) {
    for number in 0..blocks {
        socket.write_all(&block(number)).await.unwrap();
    }
    socket.shutdown().await.unwrap();
}

async fn check(mut socket: impl tokio::io::AsyncRead + Unpin, blocks: u64) {
    let mut data = vec![0; 64 << 10];
    for number in 0..blocks {
        socket.read_exact(&mut data).await.unwrap();
        assert!(data == block(number), "block {number}");
    }
    assert_eq!(socket.read(&mut data).await.unwrap(), 0);
}

#[tokio::test(flavor = "local")]
async fn sixty_four_mebibytes_both_ways_at_once() {
    const BLOCKS: u64 = 1024;
    let Chain { mut client, mut server, near, far, cancel: _cancel, .. } = chain().await;
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    within(async {
        tokio::join!(
            send(client_write, BLOCKS),
            check(server_read, BLOCKS),
            send(server_write, BLOCKS),
            check(client_read, BLOCKS)
        )
    })
    .await;
    let total = BLOCKS * (64 << 10);
    assert_eq!(within(near).await.unwrap(), RelayOutcome { sent: total, received: total, end: RelayEnd::Orderly });
    assert_eq!(within(far).await.unwrap().end, RelayEnd::Orderly);
}

#[tokio::test(flavor = "local")]
async fn a_reader_that_stops_stops_the_sender() {
    let Chain { mut client, server, traffic, cancel: _cancel, .. } = chain().await;
    let data = vec![0; 64 << 10];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(150), client.write(&data)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "no end to it");
    }
    // The tunnel holds a window and a backlog; the rest is in the kernel.
    assert!(traffic.sent() < 16 << 20, "{}", traffic.sent());
    drop(server);
}
