//! Ejection: its rules one by one, and as properties over any order of events.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::workload::Uid;

/// No spread.
const EVEN: f64 = 0.5;
const SECOND: Duration = Duration::from_secs(1);

fn endpoint() -> Subject {
    Subject::Endpoint(Uid::of_pod("Kubernetes", "shop", "cart"), 8080)
}

fn hop(number: u8) -> Subject {
    Subject::Hop(([10, 0, 0, number], 15008).into())
}

fn report(subject: Subject, fault: Fault, begun: Instant) -> Report {
    Report { subject, fault, begun, silent: None, may_eject: true }
}

/// Fails `count` times in a row, each connection begun now.
fn fails(state: &mut Ejections, subject: &Subject, fault: Fault, count: u32, now: Instant) -> Vec<Change> {
    (0..count).filter_map(|_| state.failed(report(subject.clone(), fault, now), now, EVEN)).collect()
}

#[rstest]
#[case::refused(endpoint(), Fault::Refused, 3)]
#[case::silent(endpoint(), Fault::Silent, 3)]
#[case::failed(endpoint(), Fault::Failed, 3)]
#[case::reset(endpoint(), Fault::Reset, 5)]
#[case::no_agent(hop(1), Fault::Refused, 1)]
#[case::silent_agent(hop(1), Fault::Silent, 1)]
fn so_many_failures_in_a_row_eject(#[case] subject: Subject, #[case] fault: Fault, #[case] needed: u32) {
    let (mut state, now) = (Ejections::default(), Instant::now());
    assert_eq!(fails(&mut state, &subject, fault, needed - 1, now), []);
    assert_eq!(state.standing(&subject, now), Standing::In);
    let kind = ChangeKind::Ejected { fault, lasts: 5 * SECOND };
    assert_eq!(fails(&mut state, &subject, fault, 1, now), [Change { subject: subject.clone(), kind }]);
    assert_eq!(state.standing(&subject, now + 4 * SECOND), Standing::Out);
    assert_eq!(state.standing(&subject, now + 5 * SECOND), Standing::Due);
    assert_eq!(state.rows().count(), 1);
}

#[test]
fn an_answer_in_between_begins_the_count_anew() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    for _ in 0..5 {
        assert_eq!(fails(&mut state, &endpoint(), Fault::Refused, 2, now), []);
        assert_eq!(state.answered(&endpoint(), now, now), None);
    }
    assert!(state.tidy(now).is_empty() && state.is_empty(), "nothing is left to remember");
}

#[test]
fn a_probe_brings_it_back_or_keeps_it_out_for_longer() {
    let (mut state, mut now) = (Ejections::default(), Instant::now());
    let ejected = now;
    fails(&mut state, &endpoint(), Fault::Silent, 3, now);
    for seconds in [5, 10, 20, 40, 60, 60] {
        now += seconds * SECOND;
        assert_eq!(state.standing(&endpoint(), now), Standing::Due, "after {seconds} s");
        state.took(&endpoint(), now);
        assert_eq!(state.standing(&endpoint(), now), Standing::Out, "one tries at a time");
        if seconds < 60 || now < ejected + 150 * SECOND {
            let lasts = (seconds * 2).min(60) * SECOND;
            let kind = ChangeKind::Ejected { fault: Fault::Refused, lasts };
            assert_eq!(fails(&mut state, &endpoint(), Fault::Refused, 1, now)[0].kind, kind);
        }
    }
    let back = state.answered(&endpoint(), now, now).unwrap();
    assert_eq!(back.kind, ChangeKind::Returned { after: now - ejected });
    assert_eq!(state.standing(&endpoint(), now), Standing::In);
    // Who fails again soon goes on where it was; who was well for long begins anew.
    assert_eq!(fails(&mut state, &endpoint(), Fault::Refused, 2, now), []);
    let again = fails(&mut state, &endpoint(), Fault::Refused, 1, now).remove(0);
    assert_eq!(again.kind, ChangeKind::Ejected { fault: Fault::Refused, lasts: 60 * SECOND });
    now += 60 * SECOND;
    state.took(&endpoint(), now);
    state.answered(&endpoint(), now, now).unwrap();
    assert!(state.tidy(now + 59 * SECOND).is_empty() && !state.is_empty());
    assert!(state.tidy(now + 60 * SECOND).is_empty() && state.is_empty());
}

#[test]
fn a_probe_that_never_ends_makes_room_for_the_next() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    fails(&mut state, &hop(1), Fault::Silent, 1, now);
    state.took(&hop(1), now + 5 * SECOND);
    assert_eq!(state.standing(&hop(1), now + 19 * SECOND), Standing::Out);
    assert_eq!(state.standing(&hop(1), now + 20 * SECOND), Standing::Due);
}

#[test]
fn what_began_before_the_ejection_says_nothing_of_now() {
    let (mut state, start) = (Ejections::default(), Instant::now());
    let now = start + SECOND;
    fails(&mut state, &endpoint(), Fault::Refused, 3, now);
    assert_eq!(state.answered(&endpoint(), start, now + SECOND), None);
    assert_eq!(state.failed(report(endpoint(), Fault::Silent, start), now + 5 * SECOND, EVEN), None);
    assert_eq!(state.standing(&endpoint(), now + 5 * SECOND), Standing::Due);
}

#[test]
fn who_accepts_and_resets_is_not_well_because_it_accepts() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    for _ in 0..4 {
        assert_eq!(state.connected(&endpoint(), now), None);
        assert_eq!(fails(&mut state, &endpoint(), Fault::Reset, 1, now), []);
    }
    assert_eq!(state.connected(&endpoint(), now), None);
    assert_eq!(fails(&mut state, &endpoint(), Fault::Reset, 1, now).len(), 1);
    let later = now + 5 * SECOND;
    state.took(&endpoint(), later);
    assert_eq!(state.connected(&endpoint(), later), None, "it resets it next");
    assert!(state.answered(&endpoint(), later, later).is_some());
}

#[test]
fn a_node_is_out_when_two_of_its_addresses_are_silent_and_back_with_the_first_answer() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    let node = Subject::Node("node-b".into());
    let silent = |state: &mut Ejections, number: u8, now| {
        let silent = Some(([10, 0, 0, number], 15008).into());
        state.failed(Report { silent, ..report(node.clone(), Fault::Silent, now) }, now, EVEN)
    };
    for _ in 0..5 {
        assert_eq!(silent(&mut state, 1, now), None, "one address may have a firewall");
    }
    assert!(silent(&mut state, 2, now).is_some());
    let due = now + 5 * SECOND;
    state.took(&node, due);
    let kind = ChangeKind::Ejected { fault: Fault::Silent, lasts: 5 * SECOND };
    assert_eq!(silent(&mut state, 1, due).unwrap().kind, kind, "never longer: the probe may have met the firewall");
    assert!(state.answered(&node, due, due).is_some());
    assert_eq!(silent(&mut state, 1, due), None);
}

#[test]
fn a_node_is_not_out_when_something_on_it_answers_in_between() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    let node = Subject::Node("node-b".into());
    for number in 0..10 {
        let silent = Some(([10, 0, 0, number], 15008).into());
        assert_eq!(state.failed(Report { silent, ..report(node.clone(), Fault::Silent, now) }, now, EVEN), None);
        state.answered(&node, now, now);
    }
}

#[rstest]
#[case(0, 1, false)]
#[case(0, 2, true)]
#[case(1, 2, false)]
#[case(0, 3, true)]
#[case(1, 3, false)]
#[case(1, 4, true)]
#[case(2, 4, false)]
#[case(49, 100, true)]
#[case(50, 100, false)]
fn at_most_the_share_and_never_the_last(#[case] out: usize, #[case] all: usize, #[case] may: bool) {
    assert_eq!(EjectionSettings::default().may_eject(out, all), may);
    assert_eq!(EjectionSettings { share: 100, ..EjectionSettings::default() }.may_eject(out, all), out + 1 < all);
}

#[test]
fn what_may_not_be_ejected_stays_or_returns() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    let kept = |now| Report { may_eject: false, ..report(endpoint(), Fault::Refused, now) };
    for _ in 0..10 {
        assert_eq!(state.failed(kept(now), now, EVEN), None);
    }
    fails(&mut state, &endpoint(), Fault::Refused, 3, now);
    let due = now + 10 * SECOND;
    state.took(&endpoint(), due);
    assert_eq!(state.failed(kept(due), due, EVEN).unwrap().kind, ChangeKind::Returned { after: 10 * SECOND });
    assert_eq!(state.standing(&endpoint(), due), Standing::In);
}

#[test]
fn what_nobody_wants_any_more_is_forgotten() {
    let (mut state, now) = (Ejections::default(), Instant::now());
    fails(&mut state, &hop(1), Fault::Refused, 1, now);
    assert!(state.tidy(now + 299 * SECOND).is_empty());
    assert_eq!(state.tidy(now + 300 * SECOND).len(), 1);
    assert!(state.is_empty());
}

#[derive(Debug, Clone)]
enum Event {
    Fails(u8, usize, bool, u16),
    Answers(u8, u16),
    Connects(u8),
    Takes(u8),
    Later(u16),
    Tidies,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (who, ago) = (0_u8..3, 0_u16..8_000);
    let event = prop_oneof![
        6 => (who.clone(), 0_usize..4, any::<bool>(), ago.clone()).prop_map(|(a, b, c, d)| Event::Fails(a, b, c, d)),
        2 => (who.clone(), ago).prop_map(|(a, b)| Event::Answers(a, b)),
        1 => who.clone().prop_map(Event::Connects),
        2 => who.prop_map(Event::Takes),
        3 => (0_u16..20_000).prop_map(Event::Later),
        1 => Just(Event::Tidies),
    ];
    proptest::collection::vec(event, 0..200)
}

fn subject(who: u8) -> Subject {
    match who {
        0 => endpoint(),
        1 => hop(1),
        _ => Subject::Node("node-b".into()),
    }
}

proptest! {
    /// Nothing stays out for good, what is out changes its standing in time only, and every change is told once.
    #[test]
    fn no_order_of_events_loses_an_endpoint(events in events(), spread in 0.0..=1.0_f64) {
        let start = Instant::now() + Duration::from_secs(10);
        let (mut state, mut now) = (Ejections::default(), start);
        let mut told = std::collections::HashSet::new();
        let milliseconds = |count: u16| Duration::from_millis(u64::from(count));
        for event in events {
            let changes: Vec<Change> = match event {
                Event::Fails(who, fault, may_eject, ago) => {
                    let silent = (who == 2).then(|| ([10, 0, 0, ago.to_be_bytes()[1]], 15008).into());
                    let report =
                        Report { silent, may_eject, ..report(subject(who), Fault::ALL[fault], now - milliseconds(ago)) };
                    state.failed(report, now, spread).into_iter().collect()
                }
                Event::Answers(who, ago) => {
                    state.answered(&subject(who), now - milliseconds(ago), now).into_iter().collect()
                }
                Event::Connects(who) => state.connected(&subject(who), now).into_iter().collect(),
                Event::Takes(who) => {
                    let due = state.standing(&subject(who), now) == Standing::Due;
                    state.took(&subject(who), now);
                    prop_assert!(!due || state.standing(&subject(who), now) == Standing::Out);
                    Vec::new()
                }
                Event::Later(count) => {
                    now += milliseconds(count);
                    Vec::new()
                }
                Event::Tidies => state.tidy(now),
            };
            for change in changes {
                match change.kind {
                    ChangeKind::Ejected { lasts, .. } => {
                        told.insert(change.subject);
                        prop_assert!(lasts >= Duration::from_millis(4_499) && lasts <= 66 * SECOND, "{lasts:?}");
                    }
                    ChangeKind::Returned { .. } => prop_assert!(told.remove(&change.subject), "was not out"),
                }
            }
            for who in 0..3 {
                let out = state.standing(&subject(who), now) != Standing::In;
                prop_assert_eq!(out, told.contains(&subject(who)), "what is out was told, and what was told is out");
                prop_assert_ne!(state.standing(&subject(who), now + 70 * SECOND), Standing::Out, "never for good");
            }
        }
    }
}
