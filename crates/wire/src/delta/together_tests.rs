//! Client against server in memory, under every order of loss, reconnect, restart, change and bad resources: they end
//! equal, and the client never goes back to something older.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use weft_model::service::Service;
use weft_model::{Change, Resource, ResourceKey};

use super::{Acknowledged, Limits, Received, Session, Snapshot, Subscriber, Subscription};
use crate::convert::{Encoded, ResourceType, encode};
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

const KIND: ResourceType = ResourceType::Address;
/// How many changes the server's log remembers: few, so that falling behind it happens.
const LOG: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Put { name: u8, content: u8 },
    PutBad { name: u8 },
    Remove { name: u8 },
    Subscribe { name: u8 },
    Unsubscribe { name: u8 },
    ServerSends,
    ServerReads,
    ClientReads,
    Disconnect,
    ServerRestarts,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0_u8..6;
    prop_oneof![
        3 => (name.clone(), 0_u8..3).prop_map(|(name, content)| Step::Put { name, content }),
        1 => name.clone().prop_map(|name| Step::PutBad { name }),
        2 => name.clone().prop_map(|name| Step::Remove { name }),
        1 => name.clone().prop_map(|name| Step::Subscribe { name }),
        1 => name.prop_map(|name| Step::Unsubscribe { name }),
        4 => Just(Step::ServerSends),
        4 => Just(Step::ServerReads),
        4 => Just(Step::ClientReads),
        1 => Just(Step::Disconnect),
        1 => Just(Step::ServerRestarts),
    ]
}

#[derive(Default, Clone)]
struct Store {
    sequence: u64,
    entries: BTreeMap<Arc<str>, Encoded>,
    log: VecDeque<(u64, Arc<str>)>,
}

impl Store {
    fn change(&mut self, name: &str, entry: Option<Encoded>) {
        self.sequence += 1;
        self.log.push_back((self.sequence, name.into()));
        if self.log.len() > LOG {
            self.log.pop_front();
        }
        match entry {
            Some(entry) => drop(self.entries.insert(name.into(), entry)),
            None => drop(self.entries.remove(name)),
        }
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

    fn changed_since(&self, _: ResourceType, sequence: u64) -> Option<Vec<Arc<str>>> {
        let oldest = self.log.front().map_or(0, |(oldest, _)| *oldest);
        let known = sequence + 1 >= oldest && sequence <= self.sequence;
        known.then(|| self.log.iter().filter(|(at, _)| *at > sequence).map(|(_, name)| name.clone()).collect())
    }
}

fn name_of(name: u8) -> String {
    format!("ns/host{name}")
}

fn good(name: u8, content: u8) -> Encoded {
    let service = Service::named("ns", &format!("content{content}"), &format!("host{name}"));
    encode(&Resource::Service(service))
}

/// Everything, and what is needed to check it.
struct World {
    store: Store,
    session: Session,
    subscriber: Subscriber,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<(u64, DeltaDiscoveryResponse)>,
    /// What the client has applied.
    applied: HashMap<ResourceKey, Resource>,
    wanted: Subscription,
    /// Sequence of the store when the last response that the client has read was made.
    newest_read: u64,
    limits: Limits,
}

impl World {
    fn new(subscription: Subscription, limits: Limits) -> Self {
        let mut world = Self {
            store: Store::default(),
            session: Session::new(KIND, limits),
            subscriber: Subscriber::new(KIND, subscription.clone()),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            applied: HashMap::new(),
            wanted: subscription,
            newest_read: 0,
            limits,
        };
        world.reconnect();
        world
    }

    fn reconnect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.session = Session::new(KIND, self.limits);
        self.to_server.push_back(self.subscriber.open());
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Put { name, content } => self.store.change(&name_of(*name), Some(good(*name, *content))),
            Step::PutBad { name } => {
                let garbage = Encoded::of(vec![0xff, self.store.sequence as u8].into());
                self.store.change(&name_of(*name), Some(garbage));
            }
            Step::Remove { name } => self.store.change(&name_of(*name), None),
            Step::Subscribe { name } => {
                let name = name_of(*name);
                if let Subscription::Names(names) = &mut self.wanted {
                    names.insert(name.clone());
                }
                self.to_server.extend(self.subscriber.subscribe([name]));
            }
            Step::Unsubscribe { name } => self.unsubscribe(name_of(*name)),
            Step::ServerSends => {
                if let Some(response) = self.session.respond(&self.store) {
                    self.to_client.push_back((self.store.sequence, response));
                    assert!(self.to_client.len() <= 1, "one response in flight");
                }
            }
            Step::ServerReads => {
                if let Some(request) = self.to_server.pop_front() {
                    self.session.request(request);
                }
            }
            Step::ClientReads => self.client_reads(),
            Step::Disconnect => self.reconnect(),
            Step::ServerRestarts => {
                // The log and the numbers are lost; what is stored, and its versions, are not.
                self.store.log.clear();
                self.reconnect();
            }
        }
    }

    fn unsubscribe(&mut self, name: String) {
        if let Subscription::Names(names) = &mut self.wanted {
            names.remove(&name);
        }
        let (changes, request) = self.subscriber.unsubscribe(&[name]);
        for change in changes {
            let Change::Remove(key) = change else { panic!("{change:?}") };
            assert!(self.applied.remove(&key).is_some());
        }
        self.to_server.extend(request);
    }

    fn client_reads(&mut self) {
        let Some((sequence, response)) = self.to_client.pop_front() else { return };
        assert!(sequence >= self.newest_read, "never older than what was read before");
        self.newest_read = sequence;
        let Received { changes, reply, .. } = self.subscriber.receive(response);
        for change in changes {
            match change {
                Change::Upsert(resource) => drop(self.applied.insert(resource.key(), resource)),
                Change::Remove(key) => assert!(self.applied.remove(&key).is_some(), "removes only what is there"),
            }
        }
        self.to_server.push_back(reply);
        assert_eq!(self.subscriber.held(), self.applied.len());
    }

    /// Runs until nobody has anything to say.
    fn settle(&mut self) {
        for _ in 0..1000 {
            for step in [Step::ServerReads, Step::ServerSends, Step::ClientReads] {
                self.take(&step);
            }
            if self.to_server.is_empty()
                && self.to_client.is_empty()
                && self.session.clone().respond(&self.store).is_none()
            {
                return;
            }
        }
        panic!("client and server talk for ever");
    }

    fn expected(&self) -> BTreeMap<String, String> {
        let wants = |name: &str| match &self.wanted {
            Subscription::Everything => true,
            Subscription::Names(names) => names.contains(name),
        };
        let entries = self.store.entries.iter().filter(|(name, _)| wants(name));
        entries.map(|(name, entry)| (name.to_string(), entry.version.to_string())).collect()
    }
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let names = vec(0_u8..7, 0..4).prop_map(|names| Subscription::Names(names.into_iter().map(name_of).collect()));
    prop_oneof![Just(Subscription::Everything), names]
}

proptest! {
    #[test]
    fn they_end_equal(
        wanted in subscription(), steps in vec(step(), 0..120), resources in 1_usize..4, split in any::<bool>(),
    ) {
        let limits = Limits { resources, bytes: if split { 1 } else { 1 << 20 } };
        let mut world = World::new(wanted, limits);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        let expected = world.expected();
        let bad = |name: &String| world.store.entries[name.as_str()].bytes.first() == Some(&0xff);
        for (name, version) in &expected {
            let held = world.subscriber.open().initial_resource_versions.get(name).cloned();
            if bad(name) {
                // The client refused it, said so, and keeps an older good version, if it has one.
                prop_assert!(held.as_ref() != Some(version));
                let status = world.session.status();
                prop_assert!(status.refused.iter().any(|one| &*one.name == name && &*one.version == version), "{:?}", status);
            } else {
                prop_assert_eq!(held.as_ref(), Some(version), "{}", name);
                let resource = world.applied.values().find(|resource| resource.key().to_string() == *name).unwrap();
                prop_assert_eq!(&*encode(resource).version, version.as_str());
            }
        }
        for key in world.applied.keys() {
            prop_assert!(expected.contains_key(&key.to_string()), "{} is gone", key);
        }
        prop_assert!(world.subscriber.is_complete());
        prop_assert_eq!(world.session.status().pending, 0);
    }

    /// With the same content on both sides a reconnect moves no resource.
    #[test]
    fn resume_is_free(names in vec((0_u8..6, 0_u8..3), 0..10)) {
        let mut world = World::new(Subscription::Everything, Limits::default());
        for (name, content) in names {
            world.take(&Step::Put { name, content });
        }
        world.settle();
        world.take(&Step::ServerRestarts);
        world.take(&Step::ServerReads);
        let response = world.session.respond(&world.store).unwrap();
        prop_assert!(response.resources.is_empty() && response.removed_resources.is_empty());
        let received = world.subscriber.receive(response);
        prop_assert!(received.changes.is_empty());
        prop_assert_eq!(world.session.request(received.reply), Acknowledged::Everything { resources: 0 });
    }
}

#[test]
fn names_come_and_go_while_the_stream_is_open() {
    let mut world = World::new(Subscription::Names([name_of(1)].into()), Limits::default());
    for name in 0..3 {
        world.take(&Step::Put { name, content: 0 });
    }
    world.settle();
    assert_eq!(world.applied.len(), 1);
    assert_eq!(world.subscriber.subscribe([name_of(1)]), None);
    let request = world.subscriber.subscribe([name_of(2), name_of(9)]).unwrap();
    world.to_server.push_back(request);
    assert!(!world.subscriber.is_answered(&name_of(9)));
    world.settle();
    assert_eq!(world.applied.len(), 2);
    assert!(world.subscriber.is_answered(&name_of(9)), "there is none, and the client knows");
    world.unsubscribe(name_of(1));
    assert_eq!(world.applied.len(), 1);
    world.take(&Step::Put { name: 1, content: 2 });
    world.settle();
    assert_eq!(world.applied.len(), 1);
}
