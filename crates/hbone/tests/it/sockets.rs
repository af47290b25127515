//! The relay between two sockets: same node, passthrough, plaintext inbound.

use std::io::ErrorKind;
use std::pin::pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;
use weft_hbone::{Buffers, RelayEnd, RelayOutcome, Side, Traffic, relay_sockets, reset_unless_orderly};

use crate::harness::{tcp_pair, within};

async fn joined(cancel: CancellationToken) -> (TcpStream, TcpStream, JoinHandle<RelayOutcome<()>>) {
    let (client, mut near) = tcp_pair().await;
    let (mut far, server) = tcp_pair().await;
    let relay = spawn_local(async move {
        reset_unless_orderly(&near).unwrap();
        reset_unless_orderly(&far).unwrap();
        let cancelled = pin!(cancel.cancelled());
        relay_sockets(&mut near, &mut far, &Buffers::new(), &Traffic::default(), cancelled).await
    });
    (client, server, relay)
}

async fn is_reset(socket: &mut TcpStream) -> bool {
    matches!(within(socket.read_u8()).await, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "local")]
async fn half_close_both_ways() {
    let (mut client, mut server, relay) = joined(CancellationToken::new()).await;
    client.write_all(&vec![1; 3 << 20]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    within(server.read_to_end(&mut question)).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!((question.len(), answer.as_slice()), (3 << 20, b"answer".as_slice()));
    let outcome = within(relay).await.unwrap();
    assert_eq!(outcome, RelayOutcome { sent: 3 << 20, received: 6, end: RelayEnd::Orderly });
}

#[tokio::test(flavor = "local")]
async fn resets_pass_both_ways() {
    let (client, mut server, relay) = joined(CancellationToken::new()).await;
    reset_unless_orderly(&client).unwrap();
    drop(client);
    assert!(is_reset(&mut server).await);
    assert_eq!(within(relay).await.unwrap().end, RelayEnd::ResetBy(Side::App));

    let (mut client, server, relay) = joined(CancellationToken::new()).await;
    reset_unless_orderly(&server).unwrap();
    drop(server);
    assert!(is_reset(&mut client).await);
    assert_eq!(within(relay).await.unwrap().end, RelayEnd::ResetBy(Side::Peer));
}

#[tokio::test(flavor = "local")]
async fn cancelling_resets_both() {
    let cancel = CancellationToken::new();
    let (mut client, mut server, relay) = joined(cancel.clone()).await;
    server.write_all(b"x").await.unwrap();
    within(client.read_u8()).await.unwrap();
    cancel.cancel();
    assert_eq!(within(relay).await.unwrap().end, RelayEnd::Cancelled(()));
    assert!(is_reset(&mut client).await);
    assert!(is_reset(&mut server).await);
}

#[tokio::test(flavor = "local")]
async fn a_reader_that_stops_for_a_while_loses_nothing() {
    let (mut client, mut server, relay) = joined(CancellationToken::new()).await;
    let writer = spawn_local(async move {
        client.write_all(&vec![9; 16 << 20]).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut data = Vec::new();
    within(server.read_to_end(&mut data)).await.unwrap();
    assert_eq!(data.len(), 16 << 20);
    drop(server);
    let _client = within(writer).await.unwrap();
    assert_eq!(within(relay).await.unwrap().end, RelayEnd::Orderly);
}
