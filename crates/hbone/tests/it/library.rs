//! Ours against h2, the library that stock peers are built on: each end with each.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use weft_hbone::{ConnectHead, ConnectionEnd, OpenError, ResetCode, StreamError};

use crate::harness::{
    PIPE, Pipe, echo, eventually, head, ping, pipe, start_client, start_server, start_server_until, within,
};

/// A value that HPACK's Huffman code makes shorter, and the dynamic table after that.
const BAGGAGE: &str = "k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart,service.version=v2";

fn connect(baggage: &str) -> Request<()> {
    let uri = Uri::builder().authority("10.0.0.7:8080").build().unwrap();
    let request = Request::builder().method(Method::CONNECT).uri(uri).version(Version::HTTP_2);
    request.header("baggage", baggage).body(()).unwrap()
}

/// An h2 client on one end of a pipe.
async fn library_client(io: Pipe, builder: h2::client::Builder) -> SendRequest<Bytes> {
    let (requests, connection) = within(builder.handshake(io)).await.unwrap();
    spawn_local(connection);
    requests
}

/// Opens a tunnel and waits for its 200.
async fn open(requests: &mut SendRequest<Bytes>, baggage: &str) -> (SendStream<Bytes>, RecvStream, HeaderMap) {
    let mut ready = within(requests.clone().ready()).await.unwrap();
    let (response, sending) = ready.send_request(connect(baggage), false).unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (parts, body) = response.into_parts();
    (sending, body, parts.headers)
}

/// Sends all of `data`, as the window allows.
async fn send(sending: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        sending.reserve_capacity(data.len());
        let room = within(std::future::poll_fn(|cx| sending.poll_capacity(cx))).await.unwrap().unwrap();
        let piece = data.split_to(room.min(data.len()));
        sending.send_data(piece, false).unwrap();
    }
    if end {
        sending.send_data(Bytes::new(), true).unwrap();
    }
}

async fn receive(body: &mut RecvStream, want: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < want {
        let data = within(body.data()).await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all
}

fn pattern(length: usize) -> Bytes {
    (0..=250_u8).cycle().take(length).collect::<Vec<u8>>().into()
}

#[tokio::test(flavor = "local")]
async fn a_stock_client_at_our_server() {
    let (near, far) = pipe(PIPE);
    let server = start_server(far, |incoming| async move {
        assert_eq!(incoming.head.baggage.as_deref(), Some(BAGGAGE));
        echo(incoming).await;
    });
    let mut requests = library_client(near, h2::client::Builder::new()).await;
    // One after the other, so that the table of its encoder is used; then many at once.
    for _ in 0..300 {
        let (mut sending, mut body, _) = open(&mut requests, BAGGAGE).await;
        send(&mut sending, Bytes::from_static(b"hello"), true).await;
        assert_eq!(receive(&mut body, 5).await, b"hello");
        assert!(within(body.data()).await.is_none());
    }
    let data = pattern(3 << 20);
    let tunnels = (0..4).map(|_| {
        let (mut requests, data) = (requests.clone(), data.clone());
        spawn_local(async move {
            let (mut sending, mut body, _) = open(&mut requests, BAGGAGE).await;
            let (_, back) = tokio::join!(send(&mut sending, data.clone(), true), receive(&mut body, data.len()));
            assert!(back == data);
            assert!(within(body.data()).await.is_none());
        })
    });
    for tunnel in within(futures_util::future::join_all(tunnels)).await {
        tunnel.unwrap();
    }
    drop(requests);
    assert_eq!(within(server).await.unwrap().0, ConnectionEnd::Closed);
}

#[tokio::test(flavor = "local")]
async fn its_resets_and_ours() {
    let (seen, mut errors) = tokio::sync::mpsc::unbounded_channel();
    let (near, far) = pipe(PIPE);
    start_server(far, move |incoming| {
        let seen = seen.clone();
        async move {
            let mut tunnel = incoming.accept(Some("service.name=api")).unwrap();
            let mut first = [0; 1];
            tunnel.read_exact(&mut first).await.unwrap();
            tunnel.write_all(b"part").await.unwrap();
            if &first == b"r" {
                return tunnel.reset(ResetCode::CONNECT_ERROR);
            }
            seen.send(tunnel.read_u8().await.unwrap_err().downcast::<StreamError>().unwrap()).unwrap();
        }
    });
    let mut requests = library_client(near, h2::client::Builder::new()).await;
    let (mut sending, mut body, headers) = open(&mut requests, BAGGAGE).await;
    assert_eq!(headers["baggage"], "service.name=api");
    send(&mut sending, Bytes::from_static(b"x"), false).await;
    // Its reset would drop what still waits.
    assert_eq!(receive(&mut body, 4).await, b"part");
    sending.send_reset(Reason::CONNECT_ERROR);
    assert_eq!(within(errors.recv()).await, Some(StreamError::Reset(ResetCode::CONNECT_ERROR)));
    drop((sending, body));
    let (mut sending, mut body, _) = open(&mut requests, BAGGAGE).await;
    send(&mut sending, Bytes::from_static(b"r"), false).await;
    assert_eq!(receive(&mut body, 4).await, b"part");
    let error = within(body.data()).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR));
}

#[tokio::test(flavor = "local")]
async fn a_stock_client_goes_elsewhere_when_our_server_drains() {
    let (near, far) = pipe(PIPE);
    let (drain, drained) = oneshot::channel::<()>();
    let server = start_server_until(far, echo, async move {
        let _ = drained.await;
    });
    let mut requests = library_client(near, h2::client::Builder::new()).await;
    let (mut sending, mut body, _) = open(&mut requests, BAGGAGE).await;
    drain.send(()).unwrap();
    let mut refused = requests.clone();
    eventually("it takes no more", || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(refused.poll_ready(&mut cx), std::task::Poll::Ready(Err(_)))
    })
    .await;
    send(&mut sending, Bytes::from_static(b"goes on"), true).await;
    assert_eq!(receive(&mut body, 7).await, b"goes on");
    drop((sending, body));
    assert_eq!(within(server).await.unwrap().0, ConnectionEnd::Closed);
}

/// A server of the library that echoes; `builder` says with which windows and frames.
fn library_server(io: Pipe, builder: h2::server::Builder) {
    spawn_local(async move {
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let response = Response::builder().header("baggage", BAGGAGE).body(()).unwrap();
            let mut sending = respond.send_response(response, false).unwrap();
            let mut body = request.into_body();
            spawn_local(async move {
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    send(&mut sending, data, false).await;
                }
                sending.send_data(Bytes::new(), true).unwrap();
            });
        }
    });
}

#[tokio::test(flavor = "local")]
async fn our_client_at_stock_servers() {
    let plain = h2::server::Builder::new();
    let mut narrow = h2::server::Builder::new();
    narrow.initial_window_size(1000).max_frame_size(16_384).max_header_list_size(4096);
    let mut wide = h2::server::Builder::new();
    wide.initial_window_size(4 << 20).initial_connection_window_size(16 << 20).max_frame_size(1 << 20);
    for builder in [plain, narrow, wide] {
        let (near, far) = pipe(PIPE);
        library_server(far, builder);
        let (connection, driver) = start_client(near).await;
        for _ in 0..50 {
            let mut tunnel =
                within(connection.open(&ConnectHead { baggage: Some(BAGGAGE.into()), ..head() })).await.unwrap();
            assert_eq!(tunnel.peer_baggage(), Some(BAGGAGE));
            ping(&mut tunnel, b"hello").await;
        }
        let tunnel = within(connection.open(&head())).await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(tunnel);
        let data = pattern(1 << 20);
        let speak = async {
            writing.write_all(&data).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        within(async { tokio::join!(speak, reading.read_to_end(&mut back)) }).await.1.unwrap();
        assert!(back == data);
        drop((connection, reading, writing));
        assert_eq!(within(driver).await.unwrap(), ConnectionEnd::Closed);
    }
}

#[tokio::test(flavor = "local")]
async fn a_stock_server_that_allows_few_streams_gets_few() {
    let (near, far) = pipe(PIPE);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    library_server(far, builder);
    let (connection, _driver) = start_client(near).await;
    let mut first = within(connection.open(&head())).await.unwrap();
    ping(&mut first, b"its settings are here").await;
    assert_eq!(connection.tunnel_limit(), 2);
    let second = within(connection.open(&head())).await.unwrap();
    let request = head();
    let mut third = Box::pin(connection.open(&request));
    assert!(futures_util::poll!(&mut third).is_pending());
    drop(second);
    let mut third = within(third).await.unwrap();
    ping(&mut third, b"after the second").await;
}

#[tokio::test(flavor = "local")]
async fn a_stock_server_that_says_goodbye_is_left() {
    let (near, far) = pipe(PIPE);
    let (leave, left) = oneshot::channel::<()>();
    spawn_local(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        let mut left = std::pin::pin!(left);
        tokio::select! {
            _ = connection.accept() => panic!("nothing comes"),
            _ = &mut left => connection.graceful_shutdown(),
        }
        sending.send_data(Bytes::from_static(b"last words"), true).unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    });
    let (connection, driver) = start_client(near).await;
    let mut tunnel = within(connection.open(&head())).await.unwrap();
    leave.send(()).unwrap();
    eventually("noticed", || !connection.is_usable()).await;
    let error = within(connection.open(&head())).await.unwrap_err();
    assert!(error.is_unprocessed() && matches!(error, OpenError::Stream(_)), "{error}");
    let mut words = Vec::new();
    tunnel.read_to_end(&mut words).await.unwrap();
    assert_eq!(words, b"last words");
    tunnel.shutdown().await.unwrap();
    assert_eq!(within(driver).await.unwrap(), ConnectionEnd::Closed);
}
