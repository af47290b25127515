//! Conversations as scripts: what is said to whom, in which order.

use super::*;
use crate::handover::message::{Condition, Hello, ListenerRole};

fn info(uid: &str) -> PodInfo {
    PodInfo {
        uid: uid.into(),
        name: uid.to_owned(),
        namespace: "shop".into(),
        service_account: "default".into(),
        addresses: Vec::new(),
        node: "one".into(),
        strict: false,
    }
}

/// A hub that expects no pod from the start.
fn settled() -> Hub {
    let mut hub = Hub::new("one");
    assert!(hub.expect(BTreeSet::new()).is_empty());
    hub
}

fn offer(workers: usize) -> Offer {
    let socket = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let tag = |worker| ListenerTag { worker, role: ListenerRole::Inbound, family: Family::V4 };
    Offer { workers, listeners: (0..workers).map(|worker| (tag(worker), socket.clone())).collect() }
}

fn hello(hub: &mut Hub, id: SessionId, workers: usize) -> Vec<String> {
    hub.connected(id);
    words(hub.said(id, ToCapture::Hello(Hello { workers, node: "one".into(), born: 0 })))
}

fn ack(hub: &mut Hub, id: SessionId, uid: &str) -> Vec<String> {
    words(hub.said(id, ToCapture::Ack { uid: uid.into(), error: None }))
}

fn words(effects: Vec<Effect>) -> Vec<String> {
    let word = |effect| {
        Some(match effect {
            Effect::Send(id, outgoing) => match outgoing.message {
                ToProxy::Pod { info, listeners } => {
                    assert_eq!(listeners.len(), outgoing.descriptors.len());
                    format!("{id} pod {} {}", info.uid, listeners.len())
                }
                ToProxy::Release { uid } => format!("{id} release {uid}"),
                ToProxy::Remove { uid } => format!("{id} remove {uid}"),
                ToProxy::SnapshotSent => format!("{id} snapshot"),
                ToProxy::Sockets { uid, .. } => format!("{id} sockets {uid} {}", outgoing.descriptors.len()),
                ToProxy::Retire => format!("{id} retire"),
                // Said in every snapshot and told apart below.
                ToProxy::Condition(condition) if condition == Condition::default() => return None,
                ToProxy::Condition(condition) => format!("{id} repairs {}", condition.repairs),
            },
            Effect::Close(id, why) => format!("{id} close: {why}"),
            Effect::MakeListeners(uid, workers) => format!("make {uid} {workers}"),
            Effect::MakeSockets(id, uid, _, count) => format!("{id} dial {uid} {count}"),
            Effect::Acknowledged(uid, outcome) => format!("ack {uid} {outcome:?}"),
        })
    };
    effects.into_iter().filter_map(word).collect()
}

#[test]
fn a_proxy_gets_everything_once_its_listeners_are_made() {
    let mut hub = settled();
    assert!(hub.put(info("a"), offer(1)).is_empty(), "nobody to tell");
    hub.put(info("b"), offer(2));
    assert_eq!(hello(&mut hub, 1, 2), ["make a 2", "1 pod b 2"]);
    assert_eq!(words(hub.put(info("a"), offer(2))), ["1 pod a 2", "1 snapshot"]);
    assert_eq!(words(hub.put(info("c"), offer(2))), ["1 pod c 2"]);
    assert_eq!(words(hub.put(info("d"), offer(1))), ["make d 2"], "made before the proxy came");
    assert_eq!(hub.workers(), Some(2));
}

#[test]
fn what_cannot_be_made_or_is_gone_does_not_hold_up_the_snapshot() {
    let mut hub = settled();
    hub.put(info("a"), offer(1));
    hub.put(info("b"), offer(1));
    assert_eq!(hello(&mut hub, 1, 2), ["make a 2", "make b 2"]);
    assert!(words(hub.cannot(&"a".into())).is_empty());
    assert_eq!(words(hub.remove(&"b".into())), ["1 snapshot"]);
    assert_eq!(hello(&mut settled(), 1, 2), ["1 snapshot"]);
}

#[test]
fn the_older_proxy_retires_when_the_newer_has_taken_all_and_inherits_when_it_dies() {
    let mut hub = settled();
    hub.put(info("a"), offer(1));
    assert_eq!(hello(&mut hub, 1, 1), ["1 pod a 1", "1 snapshot"]);
    ack(&mut hub, 1, "a");
    assert_eq!(hello(&mut hub, 2, 1), ["2 pod a 1", "2 snapshot"]);
    assert_eq!(words(hub.put(info("b"), offer(1))), ["2 pod b 1"]);
    assert_eq!(ack(&mut hub, 2, "b"), ["ack b Ok(())"]);
    assert_eq!(ack(&mut hub, 2, "a"), ["ack a Ok(())", "1 retire"]);
    assert_eq!(words(hub.disconnected(2)), ["1 pod a 1", "1 pod b 1", "1 snapshot"]);
    assert!(hub.disconnected(1).is_empty());
    assert_eq!((hub.workers(), hub.proxies()), (None, 0));
}

#[test]
fn a_release_waits_for_every_proxy_that_knows_the_pod() {
    let mut hub = settled();
    let uid = PodUid::from("a");
    hub.put(info("a"), offer(1));
    hello(&mut hub, 1, 1);
    hub.said(1, ToCapture::Relaying { uid: uid.clone(), count: 0 });
    hello(&mut hub, 2, 1);
    assert_eq!(words(hub.release(&uid)), ["1 release a", "2 release a"]);
    assert_eq!(hub.relaying(&uid), None, "what was said before the release does not count");
    hub.said(1, ToCapture::Relaying { uid: uid.clone(), count: 3 });
    assert_eq!(hub.relaying(&uid), None);
    hub.said(2, ToCapture::Relaying { uid: uid.clone(), count: 1 });
    assert_eq!(hub.relaying(&uid), Some(4));
    assert_eq!(hello(&mut hub, 3, 1), ["3 pod a 1", "3 release a", "3 snapshot"]);
    hub.disconnected(3);
    hub.said(1, ToCapture::Relaying { uid: uid.clone(), count: 0 });
    hub.disconnected(2);
    assert_eq!(words(hub.remove(&uid)), ["1 remove a"]);
    assert_eq!(hub.relaying(&uid), Some(0), "nobody knows it");
}

#[test]
fn requests_are_checked() {
    let mut hub = settled();
    hub.put(info("a"), offer(1));
    hub.connected(1);
    let want = |uid: &str| ToCapture::WantSockets { uid: uid.into(), family: Family::V4, count: 3 };
    assert_eq!(words(hub.said(1, want("a"))), ["1 close: the proxy did not say hello first"]);
    hello(&mut hub, 2, 1);
    assert_eq!(words(hub.said(2, want("a"))), ["2 dial a 3"]);
    assert_eq!(words(hub.said(2, want("gone"))), ["2 sockets gone 0"]);
    let other = ToCapture::Hello(Hello { workers: 1, node: "two".into(), born: 0 });
    hub.connected(3);
    assert_eq!(words(hub.said(3, other.clone())), ["3 close: the proxy serves another node"]);
    assert_eq!(words(hub.said(2, other)), ["2 close: the proxy said hello twice"]);
    assert!(words(hub.said(9, want("a"))).is_empty());
}

#[test]
fn a_snapshot_waits_for_the_pods_of_the_start() {
    let mut hub = Hub::new("one");
    assert!(hello(&mut hub, 1, 1).is_empty(), "it is not known yet which pods there are");
    assert!(hub.expect(["a", "b", "c"].map(PodUid::from).into()).is_empty());
    assert_eq!(words(hub.put(info("a"), offer(1))), ["1 pod a 1"]);
    assert!(hub.cannot(&"b".into()).is_empty());
    assert_eq!(hello(&mut hub, 2, 1), ["2 pod a 1"]);
    assert_eq!(words(hub.put(info("c"), offer(1))), ["2 pod c 1", "2 snapshot"]);
}

/// A capture half that was killed and is back refused the connections of those pods for some milliseconds.
/// Found by the simulation: the snapshot waited until the pod had left for good.
#[test]
fn a_pod_that_leaves_before_it_was_offered_does_not_hold_up_the_snapshot() {
    let mut hub = Hub::new("one");
    assert!(hub.expect(["a".into()].into()).is_empty());
    assert!(hello(&mut hub, 1, 1).is_empty(), "it is awaited");
    assert_eq!(words(hub.release(&"a".into())), ["1 snapshot"]);
}

#[test]
fn who_asks_before_a_pod_is_made_waits_for_it() {
    let ask = |hub: &mut Hub, uid: &str| {
        words(hub.said(1, ToCapture::WantSockets { uid: uid.into(), family: Family::V4, count: 4 }))
    };
    let mut hub = Hub::new("one");
    hello(&mut hub, 1, 1);
    for uid in ["a", "b", "gone"] {
        assert!(ask(&mut hub, uid).is_empty(), "nobody knows yet which pods there are");
    }
    assert_eq!(words(hub.expect(["a".into(), "b".into()].into())), ["1 sockets gone 0"]);
    assert!(ask(&mut hub, "a").is_empty());
    assert_eq!(words(hub.put(info("a"), offer(1))), ["1 pod a 1", "1 dial a 4", "1 dial a 4"]);
    assert_eq!(words(hub.cannot(&"b".into())), ["1 sockets b 0", "1 snapshot"]);
    assert_eq!(ask(&mut hub, "b"), ["1 sockets b 0"]);
    assert_eq!(ask(&mut hub, "a"), ["1 dial a 4"]);
}

#[test]
fn a_question_ends_with_its_conversation() {
    let mut hub = Hub::new("one");
    hello(&mut hub, 1, 1);
    hub.said(1, ToCapture::WantSockets { uid: "a".into(), family: Family::V4, count: 4 });
    hub.disconnected(1);
    assert!(words(hub.expect(["a".into()].into())).is_empty());
    assert!(words(hub.put(info("a"), offer(1))).is_empty());
}

#[test]
fn the_condition_is_told_to_every_proxy_when_it_changes_and_to_newcomers_at_once() {
    let mut hub = settled();
    hello(&mut hub, 1, 1);
    hub.connected(2);
    let condition = |repairs| Condition { repairs, ..Condition::default() };
    assert_eq!(words(hub.condition(condition(1))), ["1 repairs 1"], "not before the greeting");
    assert!(hub.condition(condition(1)).is_empty(), "no news");
    let greeting = ToCapture::Hello(Hello { workers: 1, node: "one".into(), born: 0 });
    assert_eq!(words(hub.said(2, greeting)), ["2 repairs 1", "2 snapshot", "1 retire"]);
    assert_eq!(words(hub.condition(condition(2))), ["1 repairs 2", "2 repairs 2"]);
}

#[test]
fn after_a_restart_of_this_half_the_younger_proxy_serves_whoever_comes_back_first() {
    let mut hub = settled();
    hub.put(info("a"), offer(1));
    let greet = |hub: &mut Hub, id, born| {
        hub.connected(id);
        words(hub.said(id, ToCapture::Hello(Hello { workers: 1, node: "one".into(), born })))
    };
    assert_eq!(greet(&mut hub, 1, 500), ["1 pod a 1", "1 snapshot"]);
    assert_eq!(ack(&mut hub, 1, "a"), ["ack a Ok(())"]);
    assert_eq!(greet(&mut hub, 2, 400), ["2 retire"], "an older one");
    assert_eq!(words(hub.put(info("b"), offer(1))), ["1 pod b 1"]);
    // The younger one dies: the older one has everything again.
    assert_eq!(words(hub.disconnected(1)), ["2 pod a 1", "2 pod b 1", "2 snapshot"]);
}

#[test]
fn a_draining_proxy_is_given_nothing_and_inherits_nothing() {
    let mut hub = settled();
    hub.put(info("a"), offer(1));
    hello(&mut hub, 1, 1);
    hello(&mut hub, 2, 1);
    ack(&mut hub, 2, "a");
    assert_eq!(words(hub.said(2, ToCapture::Draining)), ["1 pod a 1", "1 snapshot"], "the other one takes over again");
    assert!(words(hub.said(1, ToCapture::Draining)).is_empty(), "nobody is left");
    assert!(words(hub.put(info("b"), offer(1))).is_empty());
    assert_eq!(hub.workers(), None);
    // Its relayed connections still need sockets.
    let want = ToCapture::WantSockets { uid: "b".into(), family: Family::V4, count: 1 };
    assert_eq!(words(hub.said(2, want)), ["2 dial b 1"]);
    assert_eq!(hello(&mut hub, 3, 1), ["3 pod a 1", "3 pod b 1", "3 snapshot"]);
}
