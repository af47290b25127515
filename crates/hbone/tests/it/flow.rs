//! Flow control: one bad stream hurts only itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;
use weft_hbone::{Buffers, ConnectionSettings, Traffic, relay_tunnel};

use crate::harness::{PIPE, Pipe, connected, echo, eventually, head, ping, pipe, start_client, tcp_pair, within};

/// More than the 32,900 unread 1-byte frames that close a connection with stock settings, and a stock peer's windows.
const CHATTER: usize = 60_000;

/// A raw server: a tunnel to port 1 gets `CHATTER` frames of one byte each and then nothing; others are echoed.
fn start_chatty_server(io: Pipe) {
    spawn_local(async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
            let is_chatty = request.uri().port_u16() == Some(1);
            let mut body = request.into_body();
            spawn_local(async move {
                if is_chatty {
                    chatter(&mut sending).await;
                    std::future::pending::<()>().await;
                }
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    sending.send_data(data, false).unwrap();
                }
            });
        }
    });
}

async fn chatter(sending: &mut h2::SendStream<Bytes>) {
    for count in 0..CHATTER {
        sending.send_data(Bytes::from_static(b"x"), false).unwrap();
        if count % 1000 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn to_port(port: u16) -> weft_hbone::ConnectHead {
    weft_hbone::ConnectHead::new(weft_hbone::Authority::Address(([10, 0, 0, 7], port).into()))
}

#[tokio::test(flavor = "local")]
async fn a_relay_to_a_stopped_reader_behind_a_chatty_sender_hurts_only_itself() {
    let (near, far) = pipe(64 << 10);
    start_chatty_server(far);
    let (connection, driver) = start_client(near).await;
    let mut chatty = within(connection.open(&to_port(1))).await.unwrap();
    // The application's socket takes a little, and nobody reads from it.
    let (mut app, stopped) = tcp_pair().await;
    socket2::SockRef::from(&app).set_send_buffer_size(4096).unwrap();
    socket2::SockRef::from(&stopped).set_recv_buffer_size(4096).unwrap();
    let relay = spawn_local(async move {
        let never = std::future::pending::<()>();
        relay_tunnel(&mut app, &mut chatty, &Buffers::new(), &Traffic::default(), never).await
    });
    let mut good = within(connection.open(&to_port(2))).await.unwrap();
    for _ in 0..200 {
        ping(&mut good, b"goes on").await;
    }
    assert!(!driver.is_finished());
    assert!(!relay.is_finished());
    relay.abort();
}

#[tokio::test(flavor = "local")]
async fn so_does_a_consumer_that_does_not_read_at_all() {
    let (near, far) = pipe(PIPE);
    start_chatty_server(far);
    let (connection, driver) = start_client(near).await;
    let chatty = within(connection.open(&to_port(1))).await.unwrap();
    let mut good = within(connection.open(&to_port(2))).await.unwrap();
    for _ in 0..200 {
        ping(&mut good, b"goes on").await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    ping(&mut good, b"goes on").await;
    assert!(!driver.is_finished());
    drop(chatty);
}

#[tokio::test(flavor = "local")]
async fn stopped_readers_do_not_use_up_the_connection() {
    /// All but one of what a connection carries. Together they hold more than its window.
    const STOPPED: usize = 99;
    let window = ConnectionSettings::default().first_stream_window as usize;
    assert!(STOPPED * window > ConnectionSettings::default().connection_window as usize);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let connection = connected(move |incoming| {
        let count = Arc::clone(&count);
        async move {
            if incoming.head.authority.port() != 1 {
                return echo(incoming).await;
            }
            let mut tunnel = incoming.accept(None).unwrap();
            // Until the window of the stream is used up.
            let piece = vec![0; 64 << 10];
            while let Ok(written) = tunnel.write(&piece).await {
                count.fetch_add(written, Ordering::Relaxed);
            }
        }
    })
    .await;
    let mut stopped = Vec::new();
    for _ in 0..STOPPED {
        stopped.push(within(connection.open(&to_port(1))).await.unwrap());
    }
    eventually("every stopped stream full", || sent.load(Ordering::Relaxed) >= STOPPED * window).await;
    let mut good = within(connection.open(&to_port(2))).await.unwrap();
    for _ in 0..50 {
        ping(&mut good, &vec![3; 64 << 10]).await;
    }
    drop(stopped);
}

/// A raw server with stock settings that reads nothing until told, then counts frames and bytes.
#[tokio::test(flavor = "local")]
async fn many_small_writes_become_few_frames_while_the_peer_is_slow() {
    const WRITES: usize = 100_000;
    let (near, far) = pipe(4096);
    let (result, counted) = tokio::sync::oneshot::channel();
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    spawn_local(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let _sending = respond.send_response(http::Response::new(()), false).unwrap();
        let mut body = request.into_body();
        let count = async move {
            wait.await.unwrap();
            let (mut frames, mut bytes) = (0, 0);
            while bytes < WRITES {
                let data = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                (frames, bytes) = (frames + 1, bytes + data.len());
            }
            result.send((frames, bytes)).unwrap();
        };
        tokio::join!(count, async { while let Some(Ok(_)) = connection.accept().await {} });
    });
    let (connection, driver) = start_client(near).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    let writer = spawn_local(async move {
        for _ in 0..WRITES {
            tunnel.write_all(b"x").await.unwrap();
        }
        tunnel.flush().await.unwrap();
        tunnel
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.send(()).unwrap();
    let (frames, bytes) = within(counted).await.unwrap();
    assert_eq!(bytes, WRITES);
    assert!(frames < WRITES / 20, "{frames} frames for {WRITES} writes");
    let _tunnel = within(writer).await.unwrap();
    assert!(!driver.is_finished());
}

#[tokio::test(flavor = "local")]
async fn a_sender_is_held_back_by_a_peer_that_does_not_read() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let connection = connected(move |incoming| {
        let sender = sender.clone();
        async move { sender.send(incoming.accept(None).unwrap()).unwrap() }
    })
    .await;
    let mut near = within(connection.open(&head())).await.unwrap();
    let _far = within(receiver.recv()).await.unwrap();
    let mut sent = 0;
    let block = vec![0; 64 << 10];
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(100), near.write(&block)).await {
        sent += written.unwrap();
        assert!(sent < 8 << 20, "no end to it");
    }
    // The stream's window, and what may wait on this side.
    assert!(sent <= (2 << 20) + weft_hbone::tunnel::BACKLOG_LIMIT + block.len(), "{sent}");
}

/// The peer's window is wide open, but its transport takes nothing: what waits on this side is bounded all the same.
#[tokio::test(flavor = "local")]
async fn a_stuck_transport_holds_its_senders_back() {
    const TRANSPORT: usize = 64 << 10;
    let (near, far) = pipe(TRANSPORT);
    let (opened, move_no_more) = tokio::sync::oneshot::channel::<()>();
    let server = spawn_local(async move {
        let mut server = weft_hbone::server::handshake(far, &ConnectionSettings::default()).await.unwrap();
        let tunnel = server.accept().await.unwrap().unwrap().accept(None).unwrap();
        tokio::select! {
            _ = server.accept() => panic!("nothing comes"),
            _ = move_no_more => {}
        }
        std::future::pending::<()>().await;
        drop((server, tunnel));
    });
    let (connection, _driver) = start_client(near).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    opened.send(()).unwrap();
    let (mut sent, block) = (0, vec![0; 16 << 10]);
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(100), tunnel.write(&block)).await {
        sent += written.unwrap();
    }
    assert!(sent <= weft_hbone::tunnel::BACKLOG_LIMIT + TRANSPORT + 4 * block.len(), "{sent}");
    server.abort();
}

/// Memory of a relay at rest, without its ends: most of what an idle connection costs an agent beside the kernel.
#[tokio::test(flavor = "local")]
async fn a_relay_at_rest_is_small() {
    let (mut app, _client) = tcp_pair().await;
    let (mut tunnel, _far) = crate::harness::tunnel_pair().await;
    let (buffers, traffic) = (Buffers::new(), Traffic::default());
    let relay = relay_tunnel(&mut app, &mut tunnel, &buffers, &traffic, std::future::pending::<()>());
    let size = size_of_val(&relay);
    assert!(size <= 192, "{size} bytes");
}
