//! The client against a scripted capture half, with real descriptors over a socketpair.

use std::{net::TcpListener, os::fd::AsFd, time::Duration};

use super::{
    Channel, ChannelError, Event, Family, HandoverClient, Hello, ListenerRole, ListenerTag, MessageError, PodInfo,
    ToCapture, ToProxy,
    message::{MAX_DESCRIPTORS, MAX_RECORD, MAX_SOCKETS},
};
use crate::pods::PodUid;

fn info(uid: &str) -> PodInfo {
    PodInfo {
        uid: uid.into(),
        name: "cart".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        node: "one".into(),
        strict: false,
    }
}

#[tokio::test]
async fn a_pod_arrives_with_usable_listeners() {
    let (capture, proxy) = Channel::pair().unwrap();
    let hello = Hello { workers: 2, node: "one".into(), born: 0 };
    let (mut events, handle) = HandoverClient::over(proxy, hello.clone());
    assert_eq!(capture.receive::<ToCapture>().await.unwrap().0, ToCapture::Hello(hello));

    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let tags = [0, 1].map(|worker| ListenerTag { worker, role: ListenerRole::Inbound, family: Family::V4 });
    let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    capture.send(&ToProxy::Pod { info: info("a"), listeners: tags.to_vec() }, &fds).await.unwrap();
    capture.send(&ToProxy::SnapshotSent, &[]).await.unwrap();

    let Some(Event::Pod { info: got, listeners: got_listeners }) = events.recv().await else { panic!("no pod") };
    assert_eq!(got, info("a"));
    for (sent, worker) in listeners.iter().zip(&got_listeners) {
        assert_eq!(worker.inbound[0].local_addr().unwrap(), sent.local_addr().unwrap());
        assert!(worker.outbound.is_empty() && worker.hbone.is_empty());
    }
    assert!(matches!(events.recv().await, Some(Event::SnapshotSent)));

    let uid = PodUid::from("a");
    handle.ack(&uid, Err("no certificate".into()));
    handle.want_sockets(&uid, Family::V6, 1000);
    let ack = ToCapture::Ack { uid: uid.clone(), error: Some("no certificate".into()) };
    assert_eq!(capture.receive::<ToCapture>().await.unwrap().0, ack);
    let want = ToCapture::WantSockets { uid, family: Family::V6, count: MAX_SOCKETS };
    assert_eq!(capture.receive::<ToCapture>().await.unwrap().0, want);

    drop(capture);
    assert!(matches!(events.recv().await, Some(Event::Disconnected { .. })));
    assert!(events.recv().await.is_none());
}

#[tokio::test]
async fn the_most_descriptors_and_the_limit_of_a_record() {
    let (one, other) = Channel::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fds = vec![listener.as_fd(); MAX_DESCRIPTORS];
    one.send(&ToProxy::Sockets { uid: "a".into(), family: Family::V4 }, &fds).await.unwrap();
    assert_eq!(other.receive::<ToProxy>().await.unwrap().1.len(), MAX_DESCRIPTORS);
    let long = ToCapture::Ack { uid: "a".into(), error: Some("x".repeat(MAX_RECORD)) };
    assert!(matches!(one.send(&long, &[]).await, Err(ChannelError::Message(MessageError::TooLong(_)))));
    drop(one);
    assert!(matches!(other.receive::<ToProxy>().await, Err(ChannelError::Closed)));
}

#[tokio::test]
async fn a_listener_for_a_worker_that_is_not_there_ends_the_conversation() {
    let (capture, proxy) = Channel::pair().unwrap();
    let (mut events, _handle) = HandoverClient::over(proxy, Hello { workers: 1, node: "one".into(), born: 0 });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tag = ListenerTag { worker: 1, role: ListenerRole::Hbone, family: Family::V4 };
    capture.send(&ToProxy::Pod { info: info("a"), listeners: vec![tag] }, &[listener.as_fd()]).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap();
    assert!(matches!(event, Some(Event::Disconnected { .. })), "{event:?}");
}
