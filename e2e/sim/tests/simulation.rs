//! Seeds that are always the same, so that a failure is one for everybody; `make sim` tries others.

use clap::ValueEnum;
use weft_sim::check::Broken;
use weft_sim::plant::Plant;
use weft_sim::run::{Failure, run};

/// Debug builds do about 1,500 steps/s here.
const RUNS: u64 = 20;
const STEPS: usize = 1000;

#[test]
fn every_promise_is_kept_at_every_step_whatever_fails() {
    for seed in 0..RUNS {
        if let Err(failure) = run(seed, STEPS, None) {
            panic!("seed {seed}: {failure}");
        }
    }
}

/// The promise that a fault breaks.
fn breaks(plant: Plant, broken: &Broken) -> bool {
    match plant {
        Plant::EmptyAnswerForgetsPolicies => matches!(broken, Broken::PolicyMissing { .. } | Broken::NotInForce { .. }),
        Plant::AcknowledgesFirst => matches!(broken, Broken::PolicyMissing { .. } | Broken::NotInForce { .. }),
        Plant::ForgetsWithTheStream => {
            matches!(broken, Broken::Forgotten { .. } | Broken::PolicyMissing { .. } | Broken::NotInForce { .. })
        }
        Plant::BelievesEmptyAnswers | Plant::BelievesLateAnswers => matches!(broken, Broken::Forgotten { .. }),
        Plant::AcknowledgesDoubted => matches!(broken, Broken::NotInForce { .. }),
        Plant::WorkloadsFirst | Plant::AsksForWorkloadsFirst => matches!(broken, Broken::PolicyMissing { .. }),
        // A name that was not proved permits and refuses.
        Plant::BelievesBaggage => matches!(broken, Broken::NoPolicy { .. } | Broken::NotHealed { .. }),
        Plant::CachesPermits | Plant::ForgetsLastGood => {
            matches!(broken, Broken::NoPolicy { .. })
        }
        Plant::AcceptsNeighbours => matches!(broken, Broken::WrongPeer { .. }),
        Plant::ReplacesInTwoActs
        | Plant::TakesRulesAlong
        | Plant::ActsBeforeItReads
        | Plant::MendsTheGuardLast
        | Plant::OverlooksTheGuard => matches!(broken, Broken::Plaintext { .. }),
        Plant::ForgetsTheGuard | Plant::MendsRoutesOnly => {
            matches!(broken, Broken::Plaintext { .. } | Broken::NotHealed { .. })
        }
        Plant::NeverAudits => matches!(broken, Broken::NotHealed { .. }),
    }
}

/// Where to begin: just before the first seed from 0 that finds it, since those before would be tried for nothing each time.
fn first_seed(plant: Plant) -> u64 {
    match plant {
        Plant::AcknowledgesDoubted => 13,
        Plant::BelievesEmptyAnswers | Plant::BelievesLateAnswers => 24,
        Plant::CachesPermits => 33,
        Plant::ForgetsLastGood => 63,
        Plant::OverlooksTheGuard => 97,
        Plant::NeverAudits => 7,
        Plant::ActsBeforeItReads | Plant::MendsRoutesOnly | Plant::MendsTheGuardLast => 4,
        _ => 0,
    }
}

fn found(plant: Plant) -> Option<Box<Failure>> {
    let first = first_seed(plant);
    (first..first + RUNS).find_map(|seed| run(seed, STEPS, Some(plant)).err())
}

#[test]
fn every_planted_fault_is_found_and_breaks_the_promise_that_it_should() {
    let mut wrong = Vec::new();
    for plant in Plant::value_variants().iter().copied() {
        match found(plant) {
            Some(failure) if breaks(plant, &failure.broken) => {}
            Some(failure) => wrong.push(format!("{plant:?} breaks another promise: {failure}")),
            None => wrong.push(format!("{plant:?} is not found by {RUNS} seeds from {}", first_seed(plant))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_failure_says_how_to_see_it_again_and_then_the_same_happens() {
    for (plant, name) in [
        (Plant::TakesRulesAlong, "takes-rules-along"),
        (Plant::MendsTheGuardLast, "mends-the-guard-last"),
        (Plant::OverlooksTheGuard, "overlooks-the-guard"),
        (Plant::BelievesEmptyAnswers, "believes-empty-answers"),
        (Plant::AcknowledgesDoubted, "acknowledges-doubted"),
    ] {
        let failure = found(plant).unwrap();
        let command = format!("--seed {} --steps {STEPS} --plant {name} --trace", failure.seed);
        assert!(failure.to_string().contains(&command), "{failure}");
        let again = run(failure.seed, failure.steps, failure.plant).unwrap_err();
        assert_eq!((again.trace, again.broken), (failure.trace, failure.broken));
    }
}
