//! First answers of every kind, on a clock that the test turns.

use weft_model::{Resource, Uid, Workload};

use super::*;

const ADDRESS: ResourceType = ResourceType::Address;
const POLICY: ResourceType = ResourceType::Authorization;

fn key(number: usize) -> ResourceKey {
    ResourceKey::Workload(Uid::of_pod("c", "ns", &number.to_string()))
}

fn gone(numbers: std::ops::Range<usize>) -> Vec<Change> {
    numbers.map(|number| Change::Remove(key(number))).collect()
}

fn come(numbers: std::ops::Range<usize>) -> Vec<Change> {
    let workload = |number: usize| Resource::Workload(Workload::named("c", "ns", &number.to_string()));
    numbers.map(|number| Change::Upsert(workload(number))).collect()
}

fn reply(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..DeltaDiscoveryRequest::default() }
}

fn answer(kind: ResourceType, changes: Vec<Change>, held: usize) -> Answer {
    Answer { kind, changes, complete: true, synced: false, held, reply: reply("n") }
}

/// A stream with ten addresses and four policies held.
fn opened() -> (Doubt, Instant) {
    let mut doubt = Doubt::new(CONFIRMATION);
    let now = Instant::now();
    doubt.opened([(ADDRESS, 10), (POLICY, 4)].into_iter(), now);
    (doubt, now)
}

fn removals(released: &Released) -> usize {
    let changes = released.changes.iter().flat_map(|(_, changes)| changes);
    changes.filter(|change| matches!(change, Change::Remove(_))).count()
}

#[test]
fn an_ordinary_return_is_believed_as_soon_as_all_types_were_answered() {
    let (mut doubt, now) = opened();
    let first = doubt.take(answer(ADDRESS, gone(0..5), 5), now);
    assert_eq!((removals(&first), first.replies.len()), (0, 0), "nothing is said to be in force that is not");
    let second = doubt.take(answer(POLICY, Vec::new(), 4), now);
    assert_eq!((removals(&second), second.replies.len(), doubt.wake()), (5, 2, None));
    assert_eq!(removals(&doubt.take(answer(ADDRESS, gone(5..10), 0), now)), 5, "later it is a change like any other");
}

#[test]
fn an_empty_answer_waits_for_its_confirmation_and_all_types_wait_with_it() {
    let (mut doubt, now) = opened();
    // One policy of four is gone, too: with the addresses in doubt, that may be as wrong.
    assert_eq!(removals(&doubt.take(answer(POLICY, gone(20..21), 3), now)), 0);
    let released = doubt.take(answer(ADDRESS, gone(0..10), 0), now);
    let replies = (released.replies.len(), released.doubted.len());
    assert_eq!((removals(&released), replies, doubt.is_doubting()), (0, (0, 2), true));
    assert_eq!(doubt.waiting(ADDRESS), (10, 10));
    assert_eq!(doubt.wake(), Some(now + CONFIRMATION));
    assert_eq!(removals(&doubt.confirm(now + CONFIRMATION / 2)), 0);
    assert_eq!(removals(&doubt.confirm(now + CONFIRMATION)), 11);
    assert_eq!((doubt.wake(), doubt.waiting(ADDRESS).0), (None, 0));
}

#[test]
fn what_comes_back_was_never_gone() {
    let (mut doubt, now) = opened();
    doubt.take(answer(POLICY, Vec::new(), 4), now);
    doubt.take(answer(ADDRESS, gone(0..10), 0), now);
    let later = now + Duration::from_secs(5);
    let some = doubt.take(answer(ADDRESS, come(0..4), 4), later);
    assert_eq!((removals(&some), doubt.is_doubting()), (0, true));
    let enough = doubt.take(answer(ADDRESS, come(4..7), 7), later);
    assert_eq!((removals(&enough), doubt.is_doubting()), (3, false), "seven of ten are there: the others are gone");
}

#[test]
fn a_stream_that_is_lost_settles_nothing() {
    let (mut doubt, now) = opened();
    doubt.take(answer(POLICY, Vec::new(), 4), now);
    doubt.take(answer(ADDRESS, gone(0..10), 0), now);
    // The subscriber does not hold them any more, so the next server says nothing of those that it does not have.
    doubt.opened([(ADDRESS, 0), (POLICY, 4)].into_iter(), now + 2 * CONFIRMATION);
    assert_eq!(doubt.waiting(ADDRESS), (10, 10));
    assert_eq!(removals(&doubt.confirm(now + 2 * CONFIRMATION)), 0);
    doubt.take(answer(POLICY, Vec::new(), 4), now);
    let released = doubt.take(answer(ADDRESS, come(0..9), 9), now);
    assert_eq!((removals(&released), doubt.is_doubting()), (1, false));
}

#[test]
fn a_server_that_has_read_its_source_is_believed_and_a_mesh_that_is_replaced_is_no_empty_one() {
    let (mut doubt, now) = opened();
    doubt.take(Answer { synced: true, ..answer(POLICY, gone(20..24), 0) }, now);
    let released = doubt.take(Answer { synced: true, ..answer(ADDRESS, gone(0..10), 0) }, now);
    assert_eq!((removals(&released), doubt.is_doubting()), (14, false));
    let (mut doubt, now) = opened();
    doubt.take(answer(POLICY, Vec::new(), 4), now);
    let replaced = [gone(0..10), come(10..20)].concat();
    assert_eq!(removals(&doubt.take(answer(ADDRESS, replaced, 10), now)), 10);
}

#[test]
fn pieces_are_answered_one_by_one_and_judged_as_a_whole() {
    let (mut doubt, now) = opened();
    doubt.take(answer(POLICY, Vec::new(), 4), now);
    let piece = doubt.take(Answer { complete: false, ..answer(ADDRESS, gone(0..10), 0) }, now);
    assert_eq!((removals(&piece), piece.replies.len()), (0, 1));
    assert_eq!(removals(&doubt.take(answer(ADDRESS, come(10..18), 8), now)), 10);
}

#[test]
fn a_server_that_never_answers_one_of_the_types_holds_nothing_up_for_ever() {
    let (mut doubt, now) = opened();
    doubt.take(answer(ADDRESS, gone(0..1), 9), now);
    assert_eq!(doubt.wake(), Some(now + CONFIRMATION));
    let released = doubt.confirm(now + CONFIRMATION);
    assert_eq!((removals(&released), released.replies.len(), doubt.wake()), (1, 1, None));
}

/// Found by the simulation: it was believed at once, like a change in the middle of a stream.
#[test]
fn an_answer_that_takes_longer_than_the_confirmation_is_doubted_all_the_same() {
    let (mut doubt, now) = opened();
    let late = now + 2 * CONFIRMATION;
    assert_eq!(doubt.confirm(late), Released::default());
    assert_eq!(doubt.wake(), None, "nothing was said that could be believed");
    assert_eq!(removals(&doubt.take(answer(ADDRESS, gone(0..10), 0), late)), 0);
    // The other type is not waited for any longer, and judged when it comes.
    assert_eq!(doubt.wake(), Some(late + CONFIRMATION));
    let released = doubt.confirm(late + CONFIRMATION);
    assert_eq!((removals(&released), released.replies.len()), (10, 1));
    assert_eq!(removals(&doubt.take(answer(ADDRESS, gone(10..11), 0), late)), 1, "a change like any other");
    let later = late + 2 * CONFIRMATION;
    assert_eq!(removals(&doubt.take(answer(POLICY, gone(20..24), 0), later)), 0);
    assert!(doubt.is_doubting());
    assert_eq!(removals(&doubt.confirm(later + CONFIRMATION)), 4);
}
