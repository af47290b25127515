//! The proxy's end of the handover in a process without free descriptors. Alone in its program: the limit is the process's.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use weft_node_agent::handover::{
    Channel, Event, Family, HandoverClient, Hello, ListenerRole, ListenerTag, PodInfo, ToProxy,
};

const WORKERS: usize = 2;

/// From now on nothing can be opened: numbers below the lowest free one are taken.
fn no_more_files() -> io::Result<(u64, u64)> {
    let limits = getrlimit(Resource::RLIMIT_NOFILE)?;
    let free = File::open("/dev/null")?.as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(free).map_err(io::Error::other)?, limits.1)?;
    assert!(File::open("/dev/null").is_err());
    Ok(limits)
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(5), events.recv()).await.ok().flatten()
}

#[tokio::test]
async fn sockets_to_dial_with_give_way_to_a_pod_that_joins() {
    let (capture, proxy) = Channel::pair().unwrap();
    let hello = Hello { workers: WORKERS, node: "one".into(), born: 0 };
    let (mut events, _handle) = HandoverClient::over(proxy, hello);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = ToProxy::Sockets { uid: "a".into(), family: Family::V4 };

    let before = no_more_files().unwrap();
    for _ in 0..2 {
        capture.send(&sockets, &[listener.as_fd(); 4]).await.unwrap();
        let event = next(&mut events).await;
        assert!(matches!(event, Some(Event::SocketsLost { family: Family::V4, .. })), "{event:?}");
    }
    let info = PodInfo {
        uid: "b".into(),
        name: "cart".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        node: "one".into(),
        strict: false,
    };
    let tag = |worker, role, family| ListenerTag { worker, role, family };
    let roles = [ListenerRole::Outbound, ListenerRole::Inbound, ListenerRole::Hbone];
    let of_one = |worker| roles.map(|role| [tag(worker, role, Family::V4), tag(worker, role, Family::V6)]);
    let listeners: Vec<_> = (0..WORKERS).flat_map(of_one).flatten().collect();
    let descriptors = vec![listener.as_fd(); listeners.len()];
    capture.send(&ToProxy::Pod { info, listeners }, &descriptors).await.unwrap();
    let event = next(&mut events).await;
    let Some(Event::Pod { listeners, .. }) = event else { panic!("{event:?}") };
    assert!(listeners.iter().all(|of| [&of.outbound, &of.inbound, &of.hbone].iter().all(|role| role.len() == 2)));

    setrlimit(Resource::RLIMIT_NOFILE, before.0, before.1).unwrap();
    capture.send(&sockets, &[listener.as_fd(); 4]).await.unwrap();
    let event = next(&mut events).await;
    assert!(matches!(&event, Some(Event::Sockets { sockets, .. }) if sockets.len() == 4), "{event:?}");
}
