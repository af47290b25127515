//! Tables: the Secret as it may be found, and what is done with it.

use std::time::UNIX_EPOCH;

use rstest::rstest;

use super::*;

const OVERLAP: Duration = Duration::from_secs(100);

fn block(name: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
}

fn pair(name: &str) -> String {
    format!("{}-----BEGIN PRIVATE KEY-----\n{name}\n-----END PRIVATE KEY-----\n", block(name))
}

/// `root=a next=b old=c tls=d`.
fn files(words: &str) -> Files {
    let words = words.split_whitespace().map(|word| word.split_once('=').unwrap());
    let file = |(name, root): (&str, &str)| match name {
        "root" => vec![(ROOT.to_owned(), pair(root).into_bytes())],
        "next" => vec![(NEXT.to_owned(), pair(root).into_bytes())],
        "old" => vec![(OLD.to_owned(), block(root).into_bytes())],
        _ => [("tls.crt", block(root)), ("ca.crt", block(root)), ("tls.key", pair(root).replace(&block(root), ""))]
            .map(|(name, text)| (name.to_owned(), text.into_bytes()))
            .to_vec(),
    };
    words.flat_map(file).collect()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// `asked`, `tls`, `trust`, `retire` (not counted), `trust=SECONDS` (counted, to last so long).
fn rotation(words: &str) -> Rotation {
    let mut rotation = Rotation::default();
    for word in words.split_whitespace() {
        let (word, lasts) = word.split_once('=').unwrap_or((word, ""));
        let counted = lasts.parse::<u64>().ok().map(|seconds| (at(1000), at(1000 + seconds)));
        match word {
            "asked" => rotation.requested = Some("now".to_owned()),
            "tls" => rotation.given = true,
            "trust" => rotation.mark = Some(Mark { step: Step::Trust, counted }),
            _ => rotation.mark = Some(Mark { step: Step::Retire, counted }),
        }
    }
    rotation
}

#[rstest]
// Nothing is under way.
#[case::nothing("root=a", "", true, 0, None)]
#[case::asked("root=a", "asked", false, 0, Some(Act::Make))]
#[case::a_mark_without_a_file("root=a", "trust=100", true, 500, Some(Act::Correct))]
// The root of somebody else.
#[case::given_alone("tls=a", "", false, 0, Some(Act::Adopt))]
#[case::given_in_place_of_one_that_is_over("root=over tls=b", "tls", true, 0, Some(Act::Adopt))]
#[case::given_and_adopted("root=a tls=a", "tls", true, 0, None)]
#[case::given_and_not_said("root=a tls=a", "", true, 0, Some(Act::Correct))]
#[case::given_no_more("root=a", "tls", true, 0, Some(Act::Correct))]
#[case::given_and_asked("root=a tls=a", "tls asked", true, 0, Some(Act::Correct))]
#[case::given_anew("root=a tls=b", "tls", false, 0, Some(Act::Take))]
#[case::given_for_the_first_time("root=a tls=b", "asked", false, 0, Some(Act::Take))]
#[case::given_anew_in_a_rotation("root=a next=b tls=c", "tls trust=100", true, 99, None)]
#[case::and_at_its_end("root=a next=b tls=c", "tls trust=100", true, 100, Some(Act::Sign))]
// Everybody learns the next root.
#[case::not_everywhere("root=a next=b", "trust", false, 0, None)]
#[case::everywhere("root=a next=b", "trust", true, 0, Some(Act::Count(Step::Trust)))]
#[case::made_by_hand("root=a next=b", "", true, 0, Some(Act::Count(Step::Trust)))]
#[case::marked_as_the_other_step("root=a next=b", "retire=100", true, 500, Some(Act::Count(Step::Trust)))]
#[case::too_early("root=a next=b", "trust=100", true, 99, None)]
#[case::due("root=a next=b", "trust=100", true, 100, Some(Act::Sign))]
#[case::due_and_one_is_behind("root=a next=b", "trust=100", false, 500, None)]
#[case::the_life_was_longer("root=a next=b", "trust=300", true, 299, None)]
#[case::the_life_was_shorter("root=a next=b", "trust=10", true, 99, None)]
#[case::asked_once_more("root=a next=b", "trust=100 asked", true, 50, None)]
// The new root signs.
#[case::one_signs_with_the_old("root=b old=a", "retire", false, 0, None)]
#[case::all_sign_with_the_new("root=b old=a", "retire", true, 0, Some(Act::Count(Step::Retire)))]
#[case::the_old_is_still_used("root=b old=a", "retire=100", true, 99, None)]
#[case::the_old_is_over("root=b old=a", "retire=100", true, 100, Some(Act::Forget))]
#[case::the_next_but_one_waits("root=b old=a next=c", "retire=100", true, 99, None)]
#[case::and_comes_then("root=b next=c", "", true, 0, Some(Act::Count(Step::Trust)))]
fn what_is_done(
    #[case] there: &str,
    #[case] said: &str,
    #[case] settled: bool,
    #[case] lasted: u64,
    #[case] expected: Option<Act>,
) {
    let lasted = Some(Duration::from_secs(lasted));
    let there = files(there);
    let files = in_force(there.clone(), None, is_usable).unwrap();
    assert_eq!(next_step((&there, &files), &rotation(said), settled, lasted, OVERLAP), expected);
}

/// Roots by the name `over` are.
fn is_usable(pair: &str) -> bool {
    !pair.contains("over")
}

#[rstest]
#[case::as_it_is("root=a next=b tls=c", Some("z"), "root=a next=b tls=c")]
#[case::given_alone("tls=a", None, "root=a tls=a")]
#[case::written_anew_without_the_one_that_signs("tls=b", Some("a"), "root=a tls=b")]
#[case::written_anew_and_that_one_is_over("tls=b", Some("over"), "root=b tls=b")]
#[case::over_in_a_rotation("root=over next=b tls=c", None, "root=b tls=c")]
#[case::over("root=over tls=c", None, "root=c tls=c")]
#[case::all_are_over("root=over next=over tls=over", Some("a"), "root=over next=over tls=over")]
#[case::over_and_alone("root=over", Some("a"), "root=over")]
fn what_counts(#[case] there: &str, #[case] remembered: Option<&str>, #[case] expected: &str) {
    assert_eq!(in_force(files(there), remembered.map(pair), is_usable), Some(files(expected)));
}

#[test]
fn somebody_elses_secret_has_no_root_whatever_is_remembered() {
    assert_eq!(in_force(Files::new(), Some(pair("a")), is_usable), None);
}

/// Whoever looks, from any state, whenever it was killed: what it does next leads to the end, and there is a root that signs throughout.
#[rstest]
#[case::asked("root=a", "asked", "root=new", 5)]
#[case::cert_manager("root=a tls=b", "tls", "root=b tls=b", 5)]
#[case::cert_manager_alone("tls=b", "", "root=b tls=b", 1)]
#[case::by_hand("root=a next=c", "", "root=c", 4)]
#[case::over_in_a_rotation("root=over next=c", "trust=100", "root=c", 2)]
#[case::twice("root=a next=c tls=d", "asked", "root=d tls=d", 9)]
fn every_way_ends_with_the_new_root_alone(
    #[case] there: &str,
    #[case] said: &str,
    #[case] end: &str,
    #[case] writes: usize,
) {
    let (mut files_now, mut said) = (files(there), rotation(said));
    let mut acts = Vec::new();
    loop {
        let files = in_force(files_now.clone(), None, is_usable).unwrap();
        let Some(act) = next_step((&files_now, &files), &said, true, Some(OVERLAP), OVERLAP) else { break };
        (files_now, said) = after(act, (files, &said), Some(pair("new").into_bytes()), at(2000), OVERLAP);
        assert!(files_now.contains_key(ROOT), "{act:?}");
        acts.push(act);
        assert!(acts.len() < 20, "{acts:?}");
    }
    assert_eq!((files_now, acts.len()), (files(end), writes), "{acts:?}");
    assert_eq!((said.mark, said.requested), (None, None));
}

#[test]
fn the_key_of_the_old_root_is_gone_when_the_new_one_signs_and_files_of_others_stay() {
    let mut before = files("root=a next=b");
    before.insert("other".to_owned(), b"word".to_vec());
    let (there, said) = after(Act::Sign, (before, &rotation("trust=100")), None, at(2000), OVERLAP);
    let mut expected = files("root=b old=a");
    expected.insert("other".to_owned(), b"word".to_vec());
    assert_eq!(there, expected);
    assert_eq!(said.mark, Some(Mark { step: Step::Retire, counted: None }), "counted when every replica signs with it");
}

#[test]
fn a_step_is_counted_by_a_clock_that_nobody_sets() {
    let moment = |wall: u64, ticks: u64| Moment { wall: at(wall), ticks: Duration::from_secs(ticks) };
    let mark = |seconds| rotation(&format!("trust={seconds}")).mark;
    let lasted = |watched: &mut Watched, mark, now| watched.lasted(mark, now).map(|lasted| lasted.as_secs());
    // It was there when the step began: whatever the clocks of leader and replica say.
    let mut watched = Watched::default();
    assert_eq!(lasted(&mut watched, None, moment(90_000, 1)), None);
    assert_eq!(lasted(&mut watched, rotation("trust").mark, moment(90_001, 2)), None, "not counted yet");
    assert_eq!(lasted(&mut watched, mark(100), moment(90_005, 6)), Some(0));
    assert_eq!(lasted(&mut watched, mark(100), moment(10, 16)), Some(10));
    assert_eq!(lasted(&mut watched, rotation("retire=100").mark, moment(20, 26)), Some(0), "another step");
    // It came later: by the time of day up to then.
    let mut watched = Watched::default();
    assert_eq!(lasted(&mut watched, mark(100), moment(1040, 5)), Some(40));
    assert_eq!(lasted(&mut watched, mark(100), moment(90_000, 6)), Some(41));
    // Its clock is behind the leader's.
    assert_eq!(lasted(&mut Watched::default(), mark(100), moment(10, 5)), Some(0));
}
