//! The scheduler's rules, one by one, on a clock that the test turns.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn id(number: usize) -> SpiffeId {
    SpiffeId::new("td", "ns", &format!("sa{number}")).unwrap()
}

fn at(seconds: f64) -> Moment {
    let ticks = Duration::from_secs_f64(seconds);
    Moment { wall: SystemTime::UNIX_EPOCH + 1000 * HOUR + ticks, ticks }
}

fn valid(from: Moment, ttl: Duration) -> Validity {
    Validity { not_before: from.wall, not_after: from.wall + ttl }
}

fn dice() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn refused(words: &str) -> (Failure, String) {
    (Failure::Refused, words.to_owned())
}

fn names(tickets: &[Ticket]) -> Vec<SpiffeId> {
    tickets.iter().map(|ticket| ticket.identity.clone()).collect()
}

#[test]
fn the_urgent_go_first_and_eight_at_once() {
    let mut schedule = Schedule::default();
    for number in 0..6 {
        schedule.ensure(&id(number), Priority::WarmUp);
    }
    for number in 6..12 {
        schedule.ensure(&id(number), Priority::Live);
    }
    let first = schedule.start(at(0.0));
    assert_eq!(names(&first), [6, 7, 8, 9, 10, 11, 0, 1].map(id));
    assert_eq!(schedule.next_wake(at(0.0)), None, "the limit is reached: an answer comes first");
    assert!(schedule.start(at(0.0)).is_empty());
    schedule.hurry(&id(5));
    assert!(schedule.succeeded(&first[0], valid(at(0.0), HOUR), at(1.0), &mut dice()));
    assert_eq!(names(&schedule.start(at(1.0))), [id(5)], "hurried past its equals");
}

#[test]
fn renewal_is_at_half_life_and_last_in_line() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::Live);
    let ticket = schedule.start(at(0.0)).remove(0);
    schedule.succeeded(&ticket, valid(at(0.0), HOUR), at(0.0), &mut dice());
    let wake = schedule.next_wake(at(0.0)).unwrap().as_secs_f64();
    assert!((0.45 * 3600.0..=0.55 * 3600.0).contains(&wake), "{wake}");
    assert!(schedule.start(at(wake - 1.0)).is_empty());
    schedule.ensure(&id(1), Priority::WarmUp);
    assert_eq!(names(&schedule.start(at(wake + 1.0))), [1, 0].map(id));
}

#[test]
fn an_expired_certificate_is_as_urgent_as_none() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::Live);
    let ticket = schedule.start(at(0.0)).remove(0);
    schedule.succeeded(&ticket, valid(at(0.0), HOUR), at(0.0), &mut dice());
    schedule.ensure(&id(1), Priority::WarmUp);
    assert_eq!(names(&schedule.start(at(3601.0))), [0, 1].map(id));
}

#[test]
fn pauses_double_from_half_a_second_to_150_and_success_ends_them() {
    let (mut schedule, mut dice) = (Schedule::default(), dice());
    schedule.ensure(&id(0), Priority::Live);
    let mut now = 0.0;
    for failure in 0..12 {
        let ticket = schedule.start(at(now)).pop().expect("it is due");
        assert!(schedule.failed(&ticket, refused(&format!("no {failure}")), at(now), &mut dice));
        let pause = schedule.next_wake(at(now)).unwrap().as_secs_f64();
        let full = (0.625 * f64::from(1 << failure)).min(150.0);
        assert!(pause <= full && pause >= full * 0.799, "{failure}: {pause} of {full}");
        assert!(schedule.start(at(now + pause - 0.001)).is_empty(), "not before its pause is over");
        assert!(schedule.hurry(&id(0)) && schedule.start(at(now)).is_empty(), "hurry does not skip the pause");
        now += pause + 0.001;
    }
    let status = schedule.status(&id(0), at(now)).unwrap();
    assert_eq!((status.failures, status.last_error.as_deref()), (12, Some("no 11")));
    let ticket = schedule.start(at(now)).remove(0);
    schedule.succeeded(&ticket, valid(at(now), HOUR), at(now), &mut dice);
    let status = schedule.status(&id(0), at(now)).unwrap();
    assert_eq!((status.failures, status.last_error), (0, None));
}

#[test]
fn one_identity_failing_does_not_hold_up_another() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::Live);
    let ticket = schedule.start(at(0.0)).remove(0);
    schedule.failed(&ticket, refused("no"), at(0.0), &mut dice());
    schedule.ensure(&id(1), Priority::WarmUp);
    assert_eq!(names(&schedule.start(at(0.0))), [id(1)]);
}

#[test]
fn users_share_and_the_last_one_turns_off_the_light() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::WarmUp);
    schedule.ensure(&id(0), Priority::WarmUp);
    let ticket = schedule.start(at(0.0)).remove(0);
    assert!(schedule.start(at(0.0)).is_empty(), "one request for both");
    assert!(!schedule.release(&id(0)));
    assert!(schedule.release(&id(0)));
    assert!(!schedule.release(&id(0)), "released more often than ensured");
    assert_eq!(schedule.next_wake(at(0.0)), None);
    schedule.ensure(&id(0), Priority::WarmUp);
    let again = schedule.start(at(0.0)).remove(0);
    assert!(
        !schedule.succeeded(&ticket, valid(at(0.0), HOUR), at(0.0), &mut dice()),
        "the answer to the forgotten one"
    );
    assert!(schedule.succeeded(&again, valid(at(0.0), HOUR), at(0.0), &mut dice()));
}

#[test]
fn a_clock_set_back_does_not_lengthen_a_pause() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::Live);
    let ticket = schedule.start(at(0.0)).remove(0);
    schedule.failed(&ticket, refused("no"), at(0.0), &mut dice());
    let later = Moment { wall: at(0.0).wall - 100 * HOUR, ticks: Duration::from_secs(2) };
    assert_eq!(schedule.start(later).len(), 1);
}

#[test]
fn while_nothing_valid_is_there_a_ca_that_is_away_is_asked_every_15_s() {
    let (mut schedule, mut dice) = (Schedule::default(), dice());
    schedule.ensure(&id(0), Priority::Live);
    let ticket = schedule.start(at(0.0)).remove(0);
    schedule.succeeded(&ticket, valid(at(0.0), HOUR), at(0.0), &mut dice);
    let mut now = 2000.0;
    let mut pauses = Vec::new();
    while now < 4000.0 {
        let ticket = schedule.start(at(now)).pop().expect("it is due");
        schedule.failed(&ticket, (Failure::Away, "away".to_owned()), at(now), &mut dice);
        let pause = schedule.next_wake(at(now)).unwrap().as_secs_f64();
        pauses.push((now > 3600.0, pause));
        now += pause + 0.001;
    }
    let longest =
        |expired| pauses.iter().filter(|(was, _)| *was == expired).map(|(_, pause)| *pause).fold(0.0, f64::max);
    assert!(longest(false) > 100.0, "an old one serves: {pauses:?}");
    assert!((12.0..=15.0).contains(&longest(true)), "{pauses:?}");
    schedule.retry();
    assert_eq!(schedule.start(at(now - 0.002)).len(), 1, "the control plane is back: no pause is waited for");
}

#[test]
fn a_clock_that_is_set_neither_puts_a_renewal_off_nor_hides_an_expiry() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::Live);
    let ticket = schedule.start(at(0.0)).remove(0);
    let validity = Validity { not_before: at(0.0).wall - Duration::from_secs(60), not_after: at(0.0).wall + HOUR };
    schedule.succeeded(&ticket, validity, at(0.0), &mut dice());
    let moment = |step: i64, ticks: u64| {
        let wall = at(0.0).wall + Duration::from_secs(ticks);
        let offset = Duration::from_secs(step.unsigned_abs());
        Moment { wall: if step < 0 { wall - offset } else { wall + offset }, ticks: Duration::from_secs(ticks) }
    };
    let wait = |step, ticks| schedule.next_wake(moment(step, ticks)).unwrap();
    assert!(wait(0, 10) > HOUR / 3);
    assert!(wait(-30, 10) <= wait(0, 10), "half life in true time, whatever the clock says");
    assert_eq!(wait(-30, 2000), Duration::ZERO);
    assert_eq!(wait(-100, 10), Duration::ZERO, "before its beginning: no peer takes it");
    assert_eq!(wait(2000, 10), Duration::ZERO, "past half life");
    assert_eq!(wait(7200, 10), Duration::ZERO, "past its end");
}

#[test]
fn another_bundle_renews_once_and_not_again_at_once() {
    let mut schedule = Schedule::default();
    schedule.ensure(&id(0), Priority::Live);
    schedule.renew_for_bundle(&id(0), at(0.0));
    let ticket = schedule.start(at(0.0)).remove(0);
    schedule.succeeded(&ticket, valid(at(0.0), HOUR), at(0.0), &mut dice());
    schedule.renew_for_bundle(&id(0), at(29.0));
    assert!(schedule.start(at(29.0)).is_empty(), "two servers that do not agree make no endless game of it");
    schedule.renew_for_bundle(&id(0), at(31.0));
    let ticket = schedule.start(at(31.0)).remove(0);
    schedule.succeeded(&ticket, valid(at(31.0), HOUR), at(31.0), &mut dice());
    schedule.renew_all();
    assert_eq!(schedule.start(at(32.0)).len(), 1, "somebody asked for it");
}

#[derive(Debug, Clone)]
enum Step {
    Ensure(usize, Priority),
    Release(usize),
    Start,
    Answer(bool),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![Just(Priority::Live), Just(Priority::WarmUp)];
    prop_oneof![
        (0..20_usize, priority).prop_map(|(number, priority)| Step::Ensure(number, priority)),
        (0..20_usize).prop_map(Step::Release),
        Just(Step::Start),
        any::<bool>().prop_map(Step::Answer),
        any::<u16>().prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn never_more_than_the_limit_never_twice_and_never_stuck(steps in proptest::collection::vec(step(), 0..200)) {
        let (mut schedule, mut dice, mut now) = (Schedule::default(), dice(), 0.0);
        let mut open: Vec<Ticket> = Vec::new();
        for step in steps {
            match step {
                Step::Ensure(number, priority) => schedule.ensure(&id(number), priority),
                Step::Release(number) => { schedule.release(&id(number)); }
                Step::Start => {
                    for ticket in schedule.start(at(now)) {
                        prop_assert!(!open.contains(&ticket));
                        open.push(ticket);
                    }
                }
                Step::Answer(good) => if !open.is_empty() {
                    let ticket = open.remove(0);
                    if good {
                        schedule.succeeded(&ticket, valid(at(now), HOUR), at(now), &mut dice);
                    } else {
                        schedule.failed(&ticket, refused("no"), at(now), &mut dice);
                    }
                },
                Step::Pass(milliseconds) => now += f64::from(milliseconds) / 100.0,
            }
            prop_assert!(open.len() <= 8);
        }
        // Whatever happened: with answers and time, everybody who still needs a certificate gets one.
        for _ in 0..60 {
            open.append(&mut schedule.start(at(now)));
            for ticket in open.drain(..) {
                schedule.succeeded(&ticket, valid(at(now), HOUR), at(now), &mut dice);
            }
            now += 10.0;
        }
        for identity in schedule.identities() {
            let status = schedule.status(identity, at(now)).unwrap();
            prop_assert!(status.validity.is_some() && !status.in_flight, "{identity:?}: {status:?}");
        }
    }
}
