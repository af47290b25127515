//! Every seed and every earlier find of every target holds, and a little beyond: the runner itself is tried for a moment.

use std::time::{Duration, Instant};

use weft_fuzz::corpus::{folders, read};
use weft_fuzz::runner::{PATIENCE, run};
use weft_fuzz::targets::{TARGETS, by_name};

#[test]
fn every_seed_and_every_earlier_find_holds() {
    for target in TARGETS {
        let seeds = read("corpus", target.name).unwrap();
        assert!(seeds.len() >= 3, "{} has {} seeds below fuzz/corpus", target.name, seeds.len());
        for (path, input) in seeds.into_iter().chain(read("regressions", target.name).unwrap()) {
            assert!(input.len() <= target.longest, "{} is longer than any input tried", path.display());
            let begun = Instant::now();
            // A panic names the file.
            let outcome = weft_fuzz::runner::run_one(target, &input);
            outcome.unwrap_or_else(|what| panic!("{}: {what}", path.display()));
            assert!(begun.elapsed() < PATIENCE, "{}: {:?}", path.display(), begun.elapsed());
        }
    }
}

/// Seeds that a new version of a protocol has made old are no seeds any more: mutations of them end at the first check.
#[test]
fn a_seed_of_each_target_gets_past_the_first_check() {
    for target in TARGETS {
        let seeds = read("corpus", target.name).unwrap();
        let past = seeds.iter().filter(|(_, seed)| (target.run)(seed).is_past()).count();
        assert!(past > 0, "none of the {} seeds of {}", seeds.len(), target.name);
    }
}

#[test]
fn every_folder_is_one_of_a_target() {
    for folder in ["corpus", "regressions"] {
        for name in folders(folder).unwrap() {
            assert!(by_name(&name).is_some(), "fuzz/{folder}/{name} belongs to no target");
        }
    }
}

#[test]
fn each_target_runs_and_its_seeds_come_out_in_more_than_one_way() {
    for target in TARGETS {
        let report = run(target, 1, Duration::from_millis(100)).unwrap();
        assert!(report.find.is_none(), "{}: {:?}", target.name, report.find);
        assert!(report.tried > 0 && report.outcomes > 1, "{}: {report:?}", target.name);
    }
}
