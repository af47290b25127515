//! One connection and its tunnels: opening, refusing, both ends of both directions, keepalive, drain.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use weft_hbone::settings::KeepaliveSettings;
use weft_hbone::{
    Authority, Baggage, ConnectHead, ConnectionEnd, ConnectionSettings, OpenError, Refusal, ResetCode, StreamError,
    Traceparent,
};

use crate::harness::{
    PIPE, connected, echo, head, ping, pipe, start_client, start_client_with, start_server, start_server_until,
    tunnel_pair, within,
};

#[tokio::test(flavor = "local")]
async fn echo_through_one_tunnel() {
    let connection = connected(echo).await;
    let mut tunnel = connection.open(&head()).await.unwrap();
    ping(&mut tunnel, b"hello").await;
    ping(&mut tunnel, &vec![7; 300 << 10]).await;
}

#[tokio::test(flavor = "local")]
async fn the_head_arrives_and_the_baggage_comes_back() {
    let sent = ConnectHead {
        authority: Authority::Host { name: "cart.shop.svc".into(), port: 80 },
        baggage: Some(Baggage { namespace: Some("shop".into()), ..Baggage::default() }.to_string()),
        forwarded: Some("for=\"10.0.0.1:4711\";host=cart".into()),
        traceparent: Some(Traceparent::random()),
        forwarded_network: Some("n2".into()),
        istio_source: None,
    };
    let expected = sent.clone();
    let connection = connected(move |incoming| {
        assert_eq!(incoming.head, expected);
        async move { drop(incoming.accept(Some("service.name=cart")).unwrap()) }
    })
    .await;
    let tunnel = within(connection.open(&sent)).await.unwrap();
    assert_eq!(tunnel.peer_baggage(), Some("service.name=cart"));
}

#[tokio::test(flavor = "local")]
async fn the_server_may_speak_first() {
    let (mut client, mut server) = tunnel_pair().await;
    server.write_all(b"220 ready").await.unwrap();
    server.flush().await.unwrap();
    let mut greeting = [0; 9];
    within(client.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
}

#[tokio::test(flavor = "local")]
async fn half_close_lets_the_answer_through() {
    let (mut client, mut server) = tunnel_pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    within(server.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    // More than the first window: somebody must read meanwhile.
    let speak = async {
        server.write_all(&vec![1; 500_000]).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let (_, read) = within(async { tokio::join!(speak, client.read_to_end(&mut answer)) }).await;
    read.unwrap();
    assert_eq!(answer.len(), 500_000);
}

#[tokio::test(flavor = "local")]
async fn a_reset_is_no_end_in_either_direction() {
    let (mut client, mut server) = tunnel_pair().await;
    client.reset(ResetCode::CONNECT_ERROR);
    let error = within(server.read_u8()).await.unwrap_err();
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::Reset(ResetCode::CONNECT_ERROR));

    let (mut client, mut server) = tunnel_pair().await;
    server.write_all(b"part").await.unwrap();
    server.flush().await.unwrap();
    let mut part = [0; 4];
    within(client.read_exact(&mut part)).await.unwrap();
    server.reset(ResetCode::CONNECT_ERROR);
    let error = within(client.read_u8()).await.unwrap_err();
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::Reset(ResetCode::CONNECT_ERROR));
}

#[tokio::test(flavor = "local")]
async fn a_dropped_tunnel_is_a_reset_for_the_other_end() {
    let (client, mut server) = tunnel_pair().await;
    drop(client);
    let error = within(server.read_u8()).await.unwrap_err();
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::Reset(ResetCode::CANCEL));
    let (mut client, server) = tunnel_pair().await;
    drop(server);
    let error = within(client.read_u8()).await.unwrap_err();
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::Reset(ResetCode::CANCEL));
}

#[tokio::test(flavor = "local")]
async fn a_finished_end_that_is_dropped_leaves_its_answer_complete() {
    let (mut client, mut server) = tunnel_pair().await;
    server.write_all(b"all of it").await.unwrap();
    server.shutdown().await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"all of it");
    assert!(client.is_receive_complete());
}

#[tokio::test(flavor = "local")]
async fn a_lost_connection_is_no_end() {
    let (near, far) = pipe(PIPE);
    let server = start_server(far, |incoming| async move {
        let mut tunnel = incoming.accept(None).unwrap();
        tunnel.write_all(b"part").await.unwrap();
        tunnel.flush().await.unwrap();
        std::future::pending::<()>().await;
    });
    let (connection, _) = start_client(near).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    let mut part = [0; 4];
    within(tunnel.read_exact(&mut part)).await.unwrap();
    server.abort();
    let error = within(tunnel.read_u8()).await.unwrap_err();
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::ConnectionLost);
    assert!(!connection.is_usable());
}

#[tokio::test(flavor = "local")]
async fn refusals_carry_status_and_reason() {
    for (why, status) in [(Refusal::Malformed, 400), (Refusal::Denied, 401), (Refusal::Unavailable, 503)] {
        let connection = connected(move |incoming| async move { incoming.refuse(why, "policy-denied") }).await;
        let error = within(connection.open(&head())).await.unwrap_err();
        assert_eq!(error, OpenError::Refused { status, reason: Some("policy-denied".into()) });
        assert!(connection.is_usable(), "the connection outlives a refusal");
    }
}

#[tokio::test(flavor = "local")]
async fn any_status_but_200_is_a_failure() {
    let (near, far) = pipe(PIPE);
    spawn_local(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let response = http::Response::builder().status(204).body(()).unwrap();
            respond.send_response(response, false).unwrap();
        }
    });
    let (connection, _) = start_client(near).await;
    let error = within(connection.open(&head())).await.unwrap_err();
    assert_eq!(error, OpenError::Refused { status: 204, reason: None });
}

#[tokio::test(flavor = "local")]
async fn malformed_requests_get_400_and_the_connection_lives() {
    let (near, far) = pipe(PIPE);
    let server = start_server(far, echo);
    let (mut requests, connection) = h2::client::handshake(near).await.unwrap();
    spawn_local(connection);
    let get = http::Request::builder().uri("http://10.0.0.7/").body(()).unwrap();
    let connect = |authority: &str| {
        let uri = http::Uri::builder().authority(authority).build().unwrap();
        http::Request::builder().method("CONNECT").uri(uri).body(()).unwrap()
    };
    for (request, reason) in
        [(get, "not-connect"), (connect("no-port"), "bad-authority"), (connect("1.2.3.4:0"), "bad-authority")]
    {
        let (response, _stream) = requests.send_request(request, false).unwrap();
        let response = within(response).await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["x-weft-reason"], reason);
    }
    let (response, _stream) = requests.send_request(connect("10.0.0.7:80"), false).unwrap();
    assert_eq!(within(response).await.unwrap().status(), 200);
    drop((requests, _stream));
    let (end, malformed) = within(server).await.unwrap();
    assert_eq!((end, malformed.len()), (ConnectionEnd::Closed, 3));
}

#[tokio::test(flavor = "local")]
async fn a_peer_that_answers_no_ping_is_dead() {
    let (near, silent) = pipe(PIPE);
    let keepalive = KeepaliveSettings { interval: Duration::from_millis(20), timeout: Duration::from_millis(40) };
    let settings = ConnectionSettings { keepalive, ..ConnectionSettings::default() };
    let (connection, driver) = start_client_with(near, settings).await;
    let error = within(connection.open(&head())).await.unwrap_err();
    assert_eq!(error, OpenError::Stream(StreamError::PingTimeout));
    assert_eq!(within(driver).await.unwrap(), ConnectionEnd::PingTimeout);
    assert!(!connection.is_usable());
    drop(silent);
}

#[tokio::test(flavor = "local")]
async fn a_peer_that_answers_pings_lives_on() {
    let (near, far) = pipe(PIPE);
    start_server(far, echo);
    let keepalive = KeepaliveSettings { interval: Duration::from_millis(2), timeout: Duration::from_secs(5) };
    let settings = ConnectionSettings { keepalive, ..ConnectionSettings::default() };
    let (connection, driver) = start_client_with(near, settings).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    for _ in 0..20 {
        ping(&mut tunnel, b"still there").await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert!(!driver.is_finished());
}

#[tokio::test(flavor = "local")]
async fn a_draining_server_finishes_what_it_has_and_takes_nothing_new() {
    let (near, far) = pipe(PIPE);
    let (drain, drained) = oneshot::channel::<()>();
    let server = start_server_until(far, echo, async move {
        let _ = drained.await;
    });
    let (connection, driver) = start_client(near).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    ping(&mut tunnel, b"before").await;
    drain.send(()).unwrap();
    crate::harness::eventually("the client knows", || !connection.is_usable()).await;
    let error = within(connection.open(&head())).await.unwrap_err();
    assert!(error.is_unprocessed(), "{error}");
    ping(&mut tunnel, b"after").await;
    tunnel.shutdown().await.unwrap();
    assert_eq!(within(tunnel.read(&mut [0; 1])).await.unwrap(), 0);
    drop(tunnel);
    assert_eq!(within(server).await.unwrap().0, ConnectionEnd::Closed);
    assert_eq!(within(driver).await.unwrap(), ConnectionEnd::Closed);
}

#[tokio::test(flavor = "local")]
async fn an_aborting_server_cuts_its_tunnels() {
    let (near, far) = pipe(PIPE);
    let (opened, abort) = oneshot::channel::<()>();
    let server = spawn_local(async move {
        let mut connection = weft_hbone::server::handshake(far, &ConnectionSettings::default()).await.unwrap();
        let tunnel = connection.accept().await.unwrap().unwrap().accept(None).unwrap();
        let mut abort = std::pin::pin!(abort);
        tokio::select! {
            _ = connection.accept() => panic!("nothing comes"),
            _ = &mut abort => connection.abort(),
        }
        assert!(connection.accept().await.is_none());
        drop(tunnel);
        connection.end().unwrap().clone()
    });
    let (connection, _) = start_client(near).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    opened.send(()).unwrap();
    assert!(within(tunnel.read_u8()).await.is_err());
    assert_eq!(within(server).await.unwrap(), ConnectionEnd::Aborted);
}

#[tokio::test(flavor = "local")]
async fn a_withdrawn_request_is_seen_by_the_server() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let connection = connected(move |mut incoming| {
        let sender = sender.clone();
        async move {
            std::future::poll_fn(|cx| incoming.poll_withdrawn(cx)).await;
            sender.send(()).unwrap();
        }
    })
    .await;
    let request = tokio::time::timeout(Duration::from_millis(20), connection.open(&head())).await;
    assert!(request.is_err());
    within(receiver.recv()).await.unwrap();
}
