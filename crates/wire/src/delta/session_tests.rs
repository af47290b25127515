//! The server's state machine, one behaviour per test; `together_tests` runs it against the client's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rstest::rstest;

use super::{Acknowledged, Limits, Session, Snapshot};
use crate::convert::{Encoded, ResourceType};
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status};

const KIND: ResourceType = ResourceType::Authorization;

/// The simplest snapshot: everything changed always.
#[derive(Default, Clone)]
struct Store {
    sequence: u64,
    entries: BTreeMap<Arc<str>, Encoded>,
}

impl Store {
    fn of(entries: &[(&str, &str)]) -> Self {
        let mut store = Self::default();
        for (name, content) in entries {
            store.put(name, content);
        }
        store
    }

    fn put(&mut self, name: &str, content: &str) {
        self.sequence += 1;
        self.entries.insert(name.into(), Encoded::of(content.as_bytes().to_vec().into()));
    }

    fn take(&mut self, name: &str) {
        self.sequence += 1;
        self.entries.remove(name);
    }

    fn version(&self, name: &str) -> String {
        self.entries[name].version.to_string()
    }
}

impl Snapshot for Store {
    fn sequence(&self, _: ResourceType) -> u64 {
        self.sequence
    }

    fn get(&self, _: ResourceType, name: &str) -> Option<&Encoded> {
        self.entries.get(name)
    }

    fn names(&self, _: ResourceType) -> Box<dyn Iterator<Item = &Arc<str>> + '_> {
        Box::new(self.entries.keys())
    }

    fn changed_since(&self, _: ResourceType, _: u64) -> Option<Vec<Arc<str>>> {
        None
    }
}

fn names(response: &DeltaDiscoveryResponse) -> BTreeSet<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

fn first(held: &[(&str, &str)], subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        initial_resource_versions: held.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..DeltaDiscoveryRequest::default() }
}

fn nack(response: &DeltaDiscoveryResponse, message: &str) -> DeltaDiscoveryRequest {
    let error_detail = Some(Status { code: 3, message: message.to_owned() });
    DeltaDiscoveryRequest { error_detail, ..ack(response) }
}

fn opened(store: &Store, request: DeltaDiscoveryRequest) -> (Session, DeltaDiscoveryResponse) {
    let mut session = Session::new(KIND, Limits::default());
    assert!(session.respond(store).is_none(), "nobody asked");
    session.request(request);
    let response = session.respond(store).expect("a first answer");
    (session, response)
}

#[test]
fn the_first_answer_comes_even_if_it_is_empty() {
    let store = Store::default();
    let (mut session, response) = opened(&store, first(&[], &[]));
    assert!(response.resources.is_empty() && response.removed_resources.is_empty());
    assert_eq!(session.request(ack(&response)), Acknowledged::Everything { resources: 0 });
    assert!(session.respond(&store).is_none());
}

#[test]
fn one_response_at_a_time_and_only_what_changed() {
    let mut store = Store::of(&[("a", "1"), ("b", "1")]);
    let (mut session, response) = opened(&store, first(&[], &[]));
    assert_eq!(names(&response), BTreeSet::from(["a", "b"]));
    store.put("a", "2");
    store.put("a", "3");
    assert!(session.respond(&store).is_none(), "the first is not answered");
    assert_eq!(session.request(DeltaDiscoveryRequest::default()), Acknowledged::Nothing);
    let stale = DeltaDiscoveryRequest { response_nonce: "77".to_owned(), ..DeltaDiscoveryRequest::default() };
    assert_eq!(session.request(stale), Acknowledged::Nothing);
    assert!(session.respond(&store).is_none());
    assert_eq!(session.request(ack(&response)), Acknowledged::Everything { resources: 2 });
    let response = session.respond(&store).unwrap();
    assert_eq!(names(&response), BTreeSet::from(["a"]));
    assert_eq!(response.resources[0].version, store.version("a"));
    session.request(ack(&response));
    store.take("b");
    let response = session.respond(&store).unwrap();
    assert_eq!((response.resources.len(), response.removed_resources.as_slice()), (0, &["b".to_owned()][..]));
    session.request(ack(&response));
    assert!(session.respond(&store).is_none());
}

#[test]
fn resume_sends_only_the_difference() {
    let store = Store::of(&[("same", "1"), ("changed", "2"), ("new", "1")]);
    let same = store.version("same");
    let held = [("same", same.as_str()), ("changed", "old"), ("gone", "x")];
    let (_, response) = opened(&store, first(&held, &[]));
    assert_eq!(names(&response), BTreeSet::from(["changed", "new"]));
    assert_eq!(response.removed_resources, ["gone"]);
    let (mut session, response) = opened(&Store::of(&[("same", "1")]), first(&held[..1], &[]));
    assert!(response.resources.is_empty() && response.removed_resources.is_empty());
    session.request(ack(&response));
    assert_eq!(session.status().held, 1);
}

#[test]
fn a_refused_version_is_not_sent_again_but_the_next_one_is() {
    let mut store = Store::of(&[("good", "1"), ("bad", "1")]);
    let (mut session, response) = opened(&store, first(&[], &[]));
    let Acknowledged::Partly { refused } = session.request(nack(&response, "bad: no such field")) else {
        panic!("not a nack")
    };
    assert_eq!((&*refused[0].name, refused[0].reason.as_str(), refused.len()), ("bad", "no such field", 1));
    assert!(session.respond(&store).is_none());
    assert_eq!((session.held("good").is_some(), session.held("bad")), (true, None));
    assert_eq!(session.status().refused, refused);
    store.put("good", "2");
    let response = session.respond(&store).unwrap();
    assert_eq!(names(&response), BTreeSet::from(["good"]));
    session.request(ack(&response));
    store.put("bad", "2");
    let response = session.respond(&store).unwrap();
    assert_eq!(names(&response), BTreeSet::from(["bad"]));
    session.request(ack(&response));
    assert!(session.status().refused.is_empty());
    assert_eq!((session.status().acks, session.status().nacks), (2, 1));
}

#[test]
fn an_old_version_stays_held_when_the_new_one_is_refused() {
    let mut store = Store::of(&[("a", "1")]);
    let (mut session, response) = opened(&store, first(&[], &[]));
    session.request(ack(&response));
    store.put("a", "2");
    let response = session.respond(&store).unwrap();
    session.request(nack(&response, "everything is wrong"));
    assert_eq!(session.held("a").map(ToString::to_string), Some(response_version("1")));
    let mut back = store.clone();
    back.put("a", "1");
    assert!(session.respond(&back).is_none(), "the client has that one");
    assert!(session.status().refused.is_empty());
    back.take("a");
    assert_eq!(session.respond(&back).unwrap().removed_resources, ["a"]);
}

fn response_version(content: &str) -> String {
    Encoded::of(content.as_bytes().to_vec().into()).version.to_string()
}

#[rstest]
#[case(Limits { resources: 3, bytes: 1 << 20 }, 4)]
#[case(Limits { resources: 1000, bytes: 1 }, 10)]
#[case(Limits { resources: 1000, bytes: 25 }, 4)]
fn responses_are_bounded(#[case] limits: Limits, #[case] expected: usize) {
    let entries: Vec<String> = (0..10).map(|number| format!("name{number}")).collect();
    let entries: Vec<(&str, &str)> = entries.iter().map(|name| (name.as_str(), "ten bytes.")).collect();
    let store = Store::of(&entries);
    let mut session = Session::new(KIND, limits);
    session.request(first(&[], &[]));
    let mut responses = Vec::new();
    while let Some(response) = session.respond(&store) {
        session.request(ack(&response));
        responses.push(response);
    }
    assert_eq!(responses.len(), expected);
    let all: BTreeSet<&str> = responses.iter().flat_map(names).collect();
    assert_eq!(all.len(), 10);
    let (last, others) = responses.split_last().unwrap();
    assert!(others.iter().all(|response| response.system_version_info.ends_with("/more")));
    assert!(!last.system_version_info.ends_with("/more"));
}

#[test]
fn constant_change_does_not_starve_late_names() {
    let mut store = Store::of(&[("a", "0"), ("b", "0"), ("z", "0")]);
    let mut session = Session::new(KIND, Limits { resources: 1, bytes: 1 << 20 });
    session.request(first(&[], &[]));
    let mut seen = BTreeSet::new();
    for round in 1..=3 {
        let response = session.respond(&store).unwrap();
        seen.insert(response.resources[0].name.clone());
        session.request(ack(&response));
        store.put("a", &round.to_string());
        store.put("b", &round.to_string());
    }
    assert!(seen.contains("z"));
}

#[test]
fn single_names_are_answered_also_when_there_is_nothing() {
    let mut store = Store::of(&[("a", "1"), ("b", "1")]);
    let (mut session, response) = opened(&store, first(&[], &["a", "missing"]));
    assert_eq!(names(&response), BTreeSet::from(["a"]));
    assert_eq!(response.removed_resources, ["missing"]);
    session.request(ack(&response));
    store.put("b", "2");
    assert!(session.respond(&store).is_none(), "not asked for");
    session.request(first(&[], &["b", "a"]));
    let response = session.respond(&store).unwrap();
    assert_eq!(names(&response), BTreeSet::from(["a", "b"]), "asked again is answered again");
    session.request(ack(&response));
    let unsubscribe = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["b".to_owned()], ..Default::default() };
    session.request(unsubscribe);
    store.put("b", "3");
    store.put("missing", "1");
    let response = session.respond(&store).unwrap();
    assert_eq!(names(&response), BTreeSet::from(["missing"]));
    assert_eq!(session.held("b"), None);
}

/// How ztunnel asks on demand: `*` and not `*`, then names.
#[test]
fn subscribing_and_unsubscribing_everything_is_nothing() {
    let mut store = Store::of(&[("a", "1")]);
    let mut request = first(&[], &["*"]);
    request.resource_names_unsubscribe = vec!["*".to_owned()];
    let (mut session, response) = opened(&store, request);
    assert!(response.resources.is_empty());
    session.request(ack(&response));
    store.put("a", "2");
    assert!(session.respond(&store).is_none());
    session.request(first(&[], &["*"]));
    let response = session.respond(&store).unwrap();
    assert_eq!(names(&response), BTreeSet::from(["a"]));
}
