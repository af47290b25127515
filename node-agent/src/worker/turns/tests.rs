//! Tests of turns.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rstest::rstest;
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Instant, advance};

use super::{Company, FEW, LINGER, Place, ROUND, Rounds, Standing, TURN, Ticket, Turn, Turns, judge, meet};

const CROWD: &str = "10.0.0.1";
const MODEST: &str = "10.0.0.2";

#[rstest]
#[case::alone(false, 1_000, TURN, true, Place::New, Turn::Free)]
#[case::alone_though_it_waits(false, 1_000, TURN, true, Place::Waits, Turn::Free)]
#[case::few(true, FEW, TURN, true, Place::New, Turn::Free)]
#[case::few_are_left(true, FEW, TURN, true, Place::Waits, Turn::Free)]
#[case::first(true, FEW + 1, 0, false, Place::New, Turn::Step)]
#[case::last(true, FEW + 1, TURN - 1, false, Place::New, Turn::Step)]
#[case::none_left(true, FEW + 1, TURN, false, Place::New, Turn::Aside)]
#[case::none_left_though_it_was_called(true, FEW + 1, TURN, true, Place::Called, Turn::Aside)]
#[case::called(true, FEW + 1, 0, true, Place::Called, Turn::Step)]
#[case::others_wait(true, FEW + 1, 0, true, Place::New, Turn::Aside)]
#[case::woken_by_something_else(true, FEW + 1, 0, true, Place::Waits, Turn::Stay)]
fn whose_turn_it_is(
    #[case] shared: bool,
    #[case] connections: usize,
    #[case] used: u32,
    #[case] others_wait: bool,
    #[case] place: Place,
    #[case] expected: Turn,
) {
    assert_eq!(judge(Standing { shared, connections, used, others_wait }, place), expected);
}

#[rstest]
#[case::next(0, 0, Place::Waits)]
#[case::later(7, 9, Place::Waits)]
#[case::called(1, 0, Place::Called)]
#[case::called_long_ago(40_000, 0, Place::Called)]
#[case::numbers_begin_anew(u32::MAX, 3, Place::Waits)]
#[case::called_before_they_did(2, u32::MAX, Place::Called)]
fn whether_a_task_was_called(#[case] called: u32, #[case] ticket: u32, #[case] expected: Place) {
    let turns = rounds().of(CROWD.parse().unwrap());
    turns.called.set(called);
    assert_eq!(turns.place(Ticket(ticket)), expected);
}

fn rounds() -> Rc<Rounds> {
    Rounds::new(Company::default())
}

fn held(rounds: &Rc<Rounds>, caller: &str, count: usize) -> Vec<Rc<Turns>> {
    (0..count).map(|_| rounds.of(caller.parse().unwrap())).collect()
}

/// How many of a caller's connections may take a step now.
fn taken(connections: &[Rc<Turns>]) -> usize {
    let cx = &mut Context::from_waker(Waker::noop());
    connections.iter().filter(|turns| turns.poll_turn(cx, &mut None).is_ready()).count()
}

/// Callers by letter, each seen so many milliseconds after the start.
#[rstest]
#[case::nobody_else(&[('a', 0), ('a', 5)], false)]
#[case::another(&[('a', 0), ('b', 5)], true)]
#[case::another_goes_on(&[('a', 0), ('b', 1), ('b', 2), ('a', 100)], true)]
#[case::another_a_while_ago(&[('a', 0), ('b', 1), ('a', 100)], true)]
#[case::another_too_long_ago(&[('a', 0), ('b', 1), ('a', 101)], false)]
#[case::it_went_on_itself_meanwhile(&[('b', 0), ('a', 50), ('a', 99), ('a', 100)], false)]
#[case::of_three_the_latest_counts(&[('b', 0), ('c', 90), ('a', 91), ('a', 150)], true)]
fn who_has_company(#[case] seen: &[(char, u64)], #[case] expected: bool) {
    let (start, mut latest, mut shared) = (Instant::now(), [None; 2], false);
    for (caller, after) in seen {
        let address = [10, 0, 0, u8::try_from(*caller).unwrap()].into();
        shared = meet(&mut latest, address, start + Duration::from_millis(*after));
    }
    assert_eq!(shared, expected);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_alone_takes_no_turns() {
    let rounds = rounds();
    let (crowd, modest) = (held(&rounds, CROWD, 200), held(&rounds, MODEST, 1));
    assert_eq!(taken(&crowd), 200, "the other one is idle");
    assert_eq!((taken(&modest), taken(&crowd)), (1, 200), "that is looked at once in a round");
    advance(ROUND).await;
    assert_eq!(taken(&crowd), TURN as usize);
    advance(LINGER - 2 * ROUND).await;
    rounds.next_round();
    assert_eq!(taken(&crowd), 0, "it may be back soon, and others wait");
    advance(ROUND).await;
    rounds.next_round();
    assert!(crowd[0].aside.borrow().is_empty(), "all are called");
    assert_eq!(taken(&crowd), 200, "it was not");
    advance(ROUND).await;
    assert_eq!((taken(&modest), taken(&crowd)), (1, TURN as usize), "here it is");
}

#[test]
fn company_on_another_worker_is_company() {
    let company = Company::default();
    let [one, other] = [Rounds::new(company.clone()), Rounds::new(company)];
    let (crowd, modest) = (held(&one, CROWD, 200), held(&other, MODEST, 1));
    assert_eq!((taken(&modest), taken(&crowd)), (1, TURN as usize));
}

#[test]
fn nobody_is_company_for_itself() {
    let company = Company::default();
    let [one, other] = [Rounds::new(company.clone()), Rounds::new(company)];
    let (many, few) = (held(&one, CROWD, 200), held(&other, CROWD, 1));
    assert_eq!((taken(&few), taken(&many)), (1, 200));
}

#[test]
fn whoever_has_few_takes_no_turns() {
    let rounds = rounds();
    let (some, others) = (held(&rounds, CROWD, FEW), held(&rounds, MODEST, FEW));
    for _ in 0..3 {
        assert_eq!((taken(&some), taken(&others)), (FEW, FEW));
    }
}

#[test]
fn nobody_who_must_end_stands_aside() {
    let rounds = rounds();
    let (crowd, modest) = (held(&rounds, CROWD, 200), held(&rounds, MODEST, 1));
    assert_eq!((taken(&modest), taken(&crowd)), (1, TURN as usize));
    rounds.release();
    assert!(crowd[0].aside.borrow().is_empty(), "all are called");
    assert_eq!((taken(&modest), taken(&crowd)), (1, 200));
    rounds.tidy();
    assert_eq!(taken(&crowd), 0);
}

#[test]
fn what_is_gone_is_not_kept() {
    let rounds = rounds();
    let (crowd, modest) = (held(&rounds, CROWD, 200), held(&rounds, MODEST, 1));
    assert_eq!((taken(&modest), taken(&crowd)), (1, TURN as usize));
    drop((crowd, modest));
    while !rounds.due.borrow().is_empty() {
        rounds.next_round();
    }
    assert!(rounds.known.borrow().is_empty());
}

#[test]
fn whoever_waits_waits_once() {
    let rounds = rounds();
    let (crowd, modest) = (held(&rounds, CROWD, 200), held(&rounds, MODEST, 1));
    assert_eq!((taken(&modest), taken(&crowd[..TURN as usize])), (1, TURN as usize));
    let (cx, mut ticket) = (&mut Context::from_waker(Waker::noop()), None);
    for _ in 0..5 {
        assert!(crowd[0].poll_turn(cx, &mut ticket).is_pending());
    }
    assert_eq!(
        (crowd[0].aside.borrow().len(), rounds.company.waits.get()),
        (1, 1),
        "woken by bytes that came meanwhile"
    );
    rounds.next_round();
    assert!(crowd[0].poll_turn(cx, &mut ticket).is_ready());
    assert_eq!(ticket, None);
}

/// In the order of their steps: all of them come, those with few in between.
#[tokio::test(start_paused = true)]
async fn everybody_comes_and_those_with_few_at_once() {
    let (steps, rounds) = (Rc::new(RefCell::new(Vec::new())), rounds());
    let (crowd, modest) = (held(&rounds, CROWD, 200), held(&rounds, MODEST, 10));
    assert_eq!((taken(&modest), taken(&crowd[..TURN as usize])), (10, TURN as usize), "the first round is over");
    let tasks_of_this_thread = LocalSet::new();
    let begin = Instant::now();
    let order = tasks_of_this_thread.run_until(async {
        tokio::task::spawn_local(rounds.clone().run());
        yield_now().await;
        let mut tasks = JoinSet::new();
        for turns in crowd.into_iter().chain(modest) {
            let (steps, mut ticket) = (steps.clone(), None);
            tasks.spawn_local(poll_fn(move |cx| {
                ready!(turns.poll_turn(cx, &mut ticket));
                steps.borrow_mut().push(turns.caller.to_string());
                Poll::Ready(())
            }));
        }
        tasks.join_all().await;
        steps.take()
    });
    let order = order.await;
    assert_eq!(order.len(), 210);
    assert_eq!(order[..10], [MODEST; 10], "the crowd has no steps left in this round");
    // 200 steps, 32 a round, the last 64 free: by then they are no crowd any more.
    assert!(begin.elapsed() >= 4 * ROUND && begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());
}
