//! Seeds that are always the same, so that a failure is one for everybody; `weft-sim --runs` tries others.

use weft_sim::run::run;

/// Debug builds do about 1,500 steps/s here.
const RUNS: u64 = 40;
const STEPS: usize = 600;

#[test]
fn every_promise_is_kept_at_every_step_whatever_fails() {
    for seed in 0..RUNS {
        if let Err(failure) = run(seed, STEPS) {
            panic!("seed {seed}: {failure}");
        }
    }
}
