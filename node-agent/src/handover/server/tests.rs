//! Who is let in, and what happens to files that are already there.

use std::path::Path;

use tempfile::tempdir;

use super::*;
use crate::handover::{Event, HandoverClient, Hello, MessageError};

fn settings(path: &Path, allowed: Vec<u32>) -> HandoverSettings {
    HandoverSettings { path: path.to_path_buf(), mode: 0o600, owner: None, allowed }
}

fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn hello() -> Hello {
    Hello { workers: 1, node: "one".into(), born: 0 }
}

#[tokio::test]
async fn allowed_users_talk_and_others_are_turned_away() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("handover.sock");
    for (allowed, welcome) in [(own_user(), true), (own_user() + 1, false)] {
        let server = HandoverServer::bind(settings(&path, vec![allowed])).unwrap();
        let (sender, mut events) = mpsc::channel(8);
        let serving = tokio::spawn(server.serve(sender));
        let (mut proxy, _handle) = HandoverClient::connect(&path, hello()).unwrap();
        if welcome {
            let Some(FromProxy::Connected(id, queue)) = events.recv().await else { panic!("not let in") };
            assert!(matches!(events.recv().await, Some(FromProxy::Said(same, ToCapture::Hello(_))) if same == id));
            drop(queue);
            assert!(matches!(events.recv().await, Some(FromProxy::Gone(..))), "dropping the queue ends it");
        }
        assert!(matches!(proxy.recv().await, Some(Event::Disconnected { .. })));
        drop(events);
        serving.await.unwrap();
        assert!(!path.exists(), "removed at the end");
    }
}

/// An upgrade in progress.
#[tokio::test]
async fn a_proxy_of_another_version_is_turned_away_and_told_apart_by_it() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("handover.sock");
    let (sender, mut events) = mpsc::channel(8);
    let serving = tokio::spawn(HandoverServer::bind(settings(&path, vec![own_user()])).unwrap().serve(sender));
    let older = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&older, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let hello = br#"{"version":2,"kind":"hello","workers":1,"node":"one","born":0}"#;
    rustix::net::send(&older, hello, rustix::net::SendFlags::NOSIGNAL).unwrap();
    // Dropping the queue would end the session before it has read.
    let Some(FromProxy::Connected(_, _queue)) = events.recv().await else { panic!("not let in") };
    let Some(FromProxy::Gone(_, why)) = events.recv().await else { panic!("not turned away") };
    assert!(matches!(why, ChannelError::Message(MessageError::Version { found: 2 })), "{why:?}");
    assert_eq!(why.to_string(), "handover version 2, this half speaks 3: restart the older half");
    drop(events);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("handover.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let living = HandoverServer::bind(settings(&path, vec![0])).unwrap();
    let second = HandoverServer::bind(settings(&path, vec![0]));
    assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
    assert!(path.exists(), "the living one's socket is untouched");
    drop(living);
    fs::write(&path, "mine").unwrap();
    assert!(matches!(HandoverServer::bind(settings(&path, vec![0])), Err(BindError::NotASocket(_))));
    let deep = directory.path().join("not/there");
    assert!(matches!(HandoverServer::bind(settings(&deep, vec![0])), Err(BindError::Io { .. })));
}
