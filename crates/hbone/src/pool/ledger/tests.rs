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
    assert_eq!(answers[0], Answer::Wait { dials: 1 });
    assert!(answers[1..].iter().all(|answer| *answer == Answer::Wait { dials: 0 }));
    let dialled = ledger.dialled(&"a", 100, Instant::now());
    assert_eq!((dialled.served.len(), dialled.dials), (50, 0));
}

#[test]
fn a_large_burst_dials_as_many_as_it_needs_at_once() {
    let mut ledger = ledger();
    let answers = asks(&mut ledger, "a", 0..250);
    let dialling: Vec<usize> =
        answers.iter().enumerate().filter(|(_, a)| **a == Answer::Wait { dials: 1 }).map(|(at, _)| at).collect();
    assert_eq!(dialling, [0, 100, 200]);
    let first = ledger.dialled(&"a", 100, Instant::now());
    assert_eq!(first.served, (0..100).map(WaiterId).collect::<Vec<_>>());
    assert_eq!(first.dials + ledger.dialled(&"a", 100, Instant::now()).dials, 0, "enough are under way");
    let last = ledger.dialled(&"a", 100, Instant::now());
    assert_eq!((last.served.len(), last.dials), (50, 0));
}

#[test]
fn dials_are_bounded_and_follow_each_other() {
    let mut ledger = ledger();
    let answers = asks(&mut ledger, "a", 0..1000);
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Wait { dials: 1 }).count(), MOST_DIALS);
    assert_eq!(ledger.dialled(&"a", 100, Instant::now()).dials, 1, "900 wait, seven dials are under way");
    assert_eq!(ledger.dialled(&"a", 100, Instant::now()).dials, 1, "800 wait, seven are");
    assert_eq!(ledger.dialled(&"a", 100, Instant::now()).dials, 0, "700 wait, seven are");
}

#[test]
fn a_peer_that_takes_fewer_than_expected_is_dialled_more() {
    let mut ledger = ledger();
    asks(&mut ledger, "a", 0..50);
    let first = ledger.dialled(&"a", 10, Instant::now());
    assert_eq!((first.served.len(), first.dials), (10, 4));
}

#[test]
fn a_place_that_is_given_back_is_the_next_callers_without_waiting_for_the_dial() {
    let (mut ledger, now) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..3);
    let id = ledger.dialled(&"a", 2, now).connection;
    assert_eq!(ledger.give_back(id, now), Some(WaiterId(2)));
    assert_eq!(ledger.give_back(id, now), None);
    assert_eq!(ledger.ask(&"a", WaiterId(3)), Answer::Use(id), "one place is free again");
}

#[test]
fn a_replacement_is_dialled_once_and_is_there_for_the_next_caller() {
    let (mut ledger, now) = (ledger(), Instant::now());
    assert!(ledger.replace(&"a"));
    assert!(!ledger.replace(&"a"));
    assert_eq!(ledger.ask(&"a", WaiterId(0)), Answer::Wait { dials: 0 });
    let dialled = ledger.dialled(&"a", 100, now);
    assert_eq!((dialled.served, dialled.dials), (vec![WaiterId(0)], 0));
    assert!(ledger.replace(&"b"));
    assert_eq!(ledger.dial_failed(&"b"), []);
    assert_eq!(ledger.counts().count(), 1, "a key that has nothing is forgotten");
}

#[test]
fn who_waits_fails_with_the_last_dial_only() {
    let mut ledger = ledger();
    asks(&mut ledger, "a", 0..101);
    assert_eq!(ledger.dial_failed(&"a"), []);
    assert_eq!(ledger.ask(&"a", WaiterId(101)), Answer::Wait { dials: 1 }, "the one that failed is made up for");
    assert_eq!(ledger.dial_failed(&"a"), []);
    assert_eq!(ledger.dial_failed(&"a").len(), 102);
}

#[test]
fn a_failed_dial_fails_all_who_wait_and_the_next_caller_dials_again() {
    let mut ledger = ledger();
    asks(&mut ledger, "a", 0..3);
    asks(&mut ledger, "b", 3..4);
    assert_eq!(ledger.dial_failed(&"a"), [WaiterId(0), WaiterId(1), WaiterId(2)]);
    assert_eq!(ledger.ask(&"a", WaiterId(4)), Answer::Wait { dials: 1 });
    assert_eq!(ledger.ask(&"b", WaiterId(5)), Answer::Wait { dials: 0 });
}

#[test]
fn the_fullest_connection_with_room_is_used() {
    let (mut ledger, now) = (ledger(), Instant::now());
    asks(&mut ledger, "a", 0..3);
    let first = ledger.dialled(&"a", 2, now).connection;
    // One more dial was started for the third.
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
    assert_eq!(ledger.ask(&"a", WaiterId(1)), Answer::Wait { dials: 1 });
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
    assert_eq!(ledger.ask(&"a", WaiterId(7)), Answer::Wait { dials: 1 });
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
    dialling: HashMap<u8, usize>,
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

    fn end_dial(&mut self, key: u8) -> bool {
        let under_way = self.dialling.entry(key).or_default();
        let any = *under_way > 0;
        *under_way = under_way.saturating_sub(1);
        any
    }

    fn stop_waiting(&mut self, id: WaiterId) {
        let place = self.waiting.iter().position(|(_, other)| *other == id).expect("answered, but did not wait");
        self.waiting.remove(place);
    }

    fn step(&mut self, ledger: &mut Ledger<u8>, event: &Event, now: &mut Instant, waiter: WaiterId) {
        match event {
            Event::Ask(key) => match ledger.ask(key, waiter) {
                Answer::Use(id) => self.lease(id),
                Answer::Wait { dials } => {
                    *self.dialling.entry(*key).or_default() += dials;
                    self.waiting.push((*key, waiter));
                }
            },
            Event::Dialled(key, limit) if self.end_dial(*key) => {
                let dialled = ledger.dialled(key, *limit, *now);
                self.limits.insert(dialled.connection, (*limit).max(1));
                for waiter in dialled.served {
                    self.stop_waiting(waiter);
                    self.lease(dialled.connection);
                }
                *self.dialling.entry(*key).or_default() += dialled.dials;
            }
            Event::DialFailed(key) if self.end_dial(*key) => {
                for waiter in ledger.dial_failed(key) {
                    self.stop_waiting(waiter);
                }
                let last = self.dialling[key] == 0;
                assert!(!last || self.waiting.iter().all(|(other, _)| other != key), "all fail");
            }
            Event::Forget(pick) if !self.waiting.is_empty() => {
                let (key, id) = self.waiting.remove(pick % self.waiting.len());
                ledger.forget(&key, id);
            }
            Event::GiveBack(pick) if !self.leases.is_empty() => {
                let id = self.leases.swap_remove(pick % self.leases.len());
                if let Some(waiter) = ledger.give_back(id, *now) {
                    self.stop_waiting(waiter);
                    self.lease(id);
                }
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
                prop_assert!(world.dialling[key] > 0, "somebody waits and nobody dials");
            }
            prop_assert!(world.dialling.values().all(|count| *count <= MOST_DIALS));
            let live = world.leases.iter().filter(|id| !world.retired.contains(id)).count();
            prop_assert_eq!(ledger.counts().map(|(_, count)| count.tunnels).sum::<usize>(), live);
            prop_assert_eq!(ledger.counts().map(|(_, count)| count.waiting).sum::<usize>(), world.waiting.len());
        }
    }
}
