//! The pool's book: its rules one by one, and as properties over any order of events.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_secs(300);

fn ledger() -> Ledger<&'static str> {
    Ledger::new(IDLE)
}

fn asks(ledger: &mut Ledger<&'static str>, key: &'static str, waiters: std::ops::Range<u64>) -> Vec<Answer> {
    waiters.map(|waiter| ledger.ask(&key, WaiterId(waiter))).collect()
}

#[test]
fn a_burst_to_a_cold_key_dials_once() {
    let mut ledger = ledger();
    let answers = asks(&mut ledger, "a", 0..50);
    assert_eq!(answers[0], Answer::Wait { dial: true });
    assert!(answers[1..].iter().all(|answer| *answer == Answer::Wait { dial: false }));
    let dialled = ledger.dialled(&"a", 100, Instant::now());
    assert_eq!((dialled.served.len(), dialled.dial), (50, false));
}

#[test]
fn who_does_not_fit_gets_the_next_dial_in_order() {
    let mut ledger = ledger();
    asks(&mut ledger, "a", 0..250);
    let first = ledger.dialled(&"a", 100, Instant::now());
    assert_eq!(first.served, (0..100).map(WaiterId).collect::<Vec<_>>());
    assert!(first.dial);
    assert!(ledger.dialled(&"a", 100, Instant::now()).dial);
    let last = ledger.dialled(&"a", 100, Instant::now());
    assert_eq!((last.served.len(), last.dial), (50, false));
}

#[test]
fn a_failed_dial_fails_all_who_wait_and_the_next_caller_dials_again() {
    let mut ledger = ledger();
    asks(&mut ledger, "a", 0..3);
    asks(&mut ledger, "b", 3..4);
    assert_eq!(ledger.dial_failed(&"a"), [WaiterId(0), WaiterId(1), WaiterId(2)]);
    assert_eq!(ledger.ask(&"a", WaiterId(4)), Answer::Wait { dial: true });
    assert_eq!(ledger.ask(&"b", WaiterId(5)), Answer::Wait { dial: false });
}

#[test]
fn the_fullest_connection_with_room_is_used() {
    let (mut ledger, now) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..3);
    let first = ledger.dialled(&"a", 2, now).connection;
    let second = ledger.dialled(&"a", 2, now).connection;
    ledger.give_back(first, now);
    ledger.give_back(first, now);
    assert_eq!(ledger.ask(&"a", WaiterId(9)), Answer::Use(second));
    assert_eq!(ledger.ask(&"a", WaiterId(9)), Answer::Use(first));
}

#[test]
fn a_retired_connection_gets_nobody_and_its_tunnels_may_still_end() {
    let (mut ledger, now) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..1);
    let old = ledger.dialled(&"a", 100, now).connection;
    assert!(ledger.retire(old));
    assert!(!ledger.retire(old));
    assert_eq!(ledger.ask(&"a", WaiterId(1)), Answer::Wait { dial: true });
    ledger.give_back(old, now);
    let new = ledger.dialled(&"a", 100, now);
    assert_eq!(new.served, [WaiterId(1)]);
    assert_ne!(new.connection, old);
}

#[test]
fn idle_connections_are_released_after_their_time_and_busy_ones_are_not() {
    let (mut ledger, start) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..1);
    asks(&mut ledger, "b", 1..2);
    let idle = ledger.dialled(&"a", 100, start).connection;
    ledger.dialled(&"b", 100, start);
    ledger.give_back(idle, start);
    assert_eq!(ledger.expire(start + IDLE - Duration::from_millis(1)), []);
    assert_eq!(ledger.expire(start + IDLE), [idle]);
    assert_eq!(ledger.expire(start + IDLE * 10), []);
    assert_eq!(ledger.counts().map(|(key, _)| *key).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_connection_nobody_waited_for_any_more_is_idle_from_the_start() {
    let (mut ledger, start) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..1);
    ledger.forget(&"a", WaiterId(0));
    let dialled = ledger.dialled(&"a", 100, start);
    assert_eq!(dialled.served, []);
    assert_eq!(ledger.expire(start + IDLE), [dialled.connection]);
}

#[test]
fn a_lower_limit_of_the_peer_holds_from_then_on() {
    let (mut ledger, now) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..2);
    let connection = ledger.dialled(&"a", 100, now).connection;
    assert!(ledger.set_limit(connection, 2));
    assert!(!ledger.set_limit(connection, 1));
    ledger.give_back(connection, now);
    assert_eq!(ledger.ask(&"a", WaiterId(7)), Answer::Wait { dial: true });
}

#[derive(Debug, Clone)]
enum Event {
    Ask(u8),
    Dialled(u8, usize),
    DialFailed(u8),
    Forget(usize),
    GiveBack(usize),
    Retire(usize),
    Later(u16),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let key = 0_u8..3;
    let event = prop_oneof![
        6 => key.clone().prop_map(Event::Ask),
        3 => (key.clone(), 0_usize..4).prop_map(|(key, limit)| Event::Dialled(key, limit)),
        1 => key.prop_map(Event::DialFailed),
        1 => any::<usize>().prop_map(Event::Forget),
        3 => any::<usize>().prop_map(Event::GiveBack),
        1 => any::<usize>().prop_map(Event::Retire),
        1 => (0_u16..400).prop_map(Event::Later),
    ];
    proptest::collection::vec(event, 0..200)
}

/// What must be true of the world around the ledger.
#[derive(Default)]
struct World {
    dialling: HashSet<u8>,
    waiting: Vec<(u8, WaiterId)>,
    leases: Vec<ConnectionId>,
    limits: HashMap<ConnectionId, usize>,
    retired: HashSet<ConnectionId>,
}

impl World {
    fn lease(&mut self, id: ConnectionId) {
        assert!(!self.retired.contains(&id), "a retired connection got a caller");
        self.leases.push(id);
        let used = self.leases.iter().filter(|other| **other == id).count();
        assert!(used <= self.limits[&id], "more tunnels than fit");
    }

    fn stop_waiting(&mut self, id: WaiterId) {
        let place = self.waiting.iter().position(|(_, other)| *other == id).expect("answered, but did not wait");
        self.waiting.remove(place);
    }

    fn step(&mut self, ledger: &mut Ledger<u8>, event: &Event, now: &mut Instant, waiter: WaiterId) {
        match event {
            Event::Ask(key) => match ledger.ask(key, waiter) {
                Answer::Use(id) => self.lease(id),
                Answer::Wait { dial } => {
                    assert_eq!(dial, self.dialling.insert(*key), "one dial per key that waits");
                    self.waiting.push((*key, waiter));
                }
            },
            Event::Dialled(key, limit) if self.dialling.remove(key) => {
                let dialled = ledger.dialled(key, *limit, *now);
                self.limits.insert(dialled.connection, (*limit).max(1));
                for waiter in dialled.served {
                    self.stop_waiting(waiter);
                    self.lease(dialled.connection);
                }
                if dialled.dial {
                    self.dialling.insert(*key);
                }
            }
            Event::DialFailed(key) if self.dialling.remove(key) => {
                for waiter in ledger.dial_failed(key) {
                    self.stop_waiting(waiter);
                }
                assert!(self.waiting.iter().all(|(other, _)| other != key), "all fail");
            }
            Event::Forget(pick) if !self.waiting.is_empty() => {
                let (key, id) = self.waiting.remove(pick % self.waiting.len());
                ledger.forget(&key, id);
            }
            Event::GiveBack(pick) if !self.leases.is_empty() => {
                ledger.give_back(self.leases.swap_remove(pick % self.leases.len()), *now);
            }
            Event::Retire(pick) if !self.limits.is_empty() => {
                let mut ids: Vec<_> = self.limits.keys().copied().collect();
                ids.sort();
                let id = ids[pick % ids.len()];
                assert_eq!(ledger.retire(id), self.retired.insert(id));
            }
            Event::Later(seconds) => {
                *now += Duration::from_secs(u64::from(*seconds));
                for id in ledger.expire(*now) {
                    assert!(!self.leases.contains(&id), "a connection in use was released");
                    self.retired.insert(id);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_the_book(events in events()) {
        let (mut ledger, mut world, mut now) = (Ledger::new(IDLE), World::default(), Instant::now());
        for (turn, event) in events.iter().enumerate() {
            world.step(&mut ledger, event, &mut now, WaiterId(turn as u64));
            for (key, _) in &world.waiting {
                prop_assert!(world.dialling.contains(key), "somebody waits and nobody dials");
            }
            let live = world.leases.iter().filter(|id| !world.retired.contains(id)).count();
            prop_assert_eq!(ledger.counts().map(|(_, count)| count.tunnels).sum::<usize>(), live);
            prop_assert_eq!(ledger.counts().map(|(_, count)| count.waiting).sum::<usize>(), world.waiting.len());
        }
    }
}
