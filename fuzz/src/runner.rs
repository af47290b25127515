//! Runs one target for a while: mutations of its seeds, and of whatever came out in a new way.

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::corpus;
use crate::mutate::mutate;
use crate::targets::{Outcome, Target};

/// What one input may take. The slowest honest one takes some milliseconds in a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Inputs that are kept for mutation beside the seeds: later ones take the place of earlier ones.
const POOL: usize = 4096;
/// Attempts to make a find shorter.
const SHORTENINGS: usize = 2000;

/// A target that did not hold.
#[derive(Debug)]
pub struct Find {
    /// What the panic said, or that it took too long.
    pub what: String,
    /// Where the input is kept.
    pub path: PathBuf,
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs tried.
    pub tried: u64,
    /// Different outcomes.
    pub outcomes: usize,
    /// What did not hold, if anything: the run ends with it.
    pub find: Option<Find>,
}

/// Runs one input; what its panic said, if it did not hold.
///
/// # Errors
/// The panic's text.
pub fn run_one(target: &Target, input: &[u8]) -> Result<Outcome, String> {
    // Targets keep nothing from one input to the next that a panic could leave half done.
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic".to_owned())
    })
}

enum News {
    Trying(Vec<u8>),
    Done(Report, Option<(String, Vec<u8>)>),
}

/// Tries a target for `time`: first what is on disk, then mutations of it. The same seed tries the same inputs in the same
/// order.
///
/// # Errors
/// The corpus cannot be read, or a find not be kept.
pub fn run(target: &'static Target, seed: u64, time: Duration) -> io::Result<Report> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for folder in ["corpus", "regressions"] {
        seeds.extend(corpus::read(folder, target.name)?.into_iter().map(|(_, bytes)| bytes));
    }
    let (news, heard) = channel();
    // A thread of its own, so that one that hangs can be told and left.
    let thread = std::thread::Builder::new().name(target.name.to_owned());
    let _runs = thread.spawn(move || explore(target, seeds, seed, time, &news))?;
    listen(target, &heard)
}

fn listen(target: &Target, heard: &Receiver<News>) -> io::Result<Report> {
    let mut trying = Vec::new();
    loop {
        match heard.recv_timeout(PATIENCE) {
            Ok(News::Trying(input)) => trying = input,
            Ok(News::Done(report, None)) => return Ok(report),
            Ok(News::Done(report, Some((what, input)))) => {
                return Ok(Report { find: Some(Find { what, path: corpus::keep(target.name, &input)? }), ..report });
            }
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("nothing came of an input within {PATIENCE:?}");
                return Ok(Report {
                    find: Some(Find { what, path: corpus::keep(target.name, &trying)? }),
                    ..Report::default()
                });
            }
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the run ended without a word")),
        }
    }
}

fn explore(target: &'static Target, seeds: Vec<Vec<u8>>, seed: u64, time: Duration, news: &Sender<News>) {
    let begun = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut pool, mut known) = (seeds.clone(), HashSet::new());
    let mut report = Report::default();
    let mut queue = seeds.into_iter();
    let mut place = 0;
    while begun.elapsed() < time {
        let input = queue.next().unwrap_or_else(|| mutate(&mut random, &pool, target.words, target.longest));
        // Nobody listens any more: another input has hung, or the program ends.
        if news.send(News::Trying(input.clone())).is_err() {
            return;
        }
        report.tried += 1;
        match run_one(target, &input) {
            Ok(outcome) if !known.insert(outcome) => {}
            Ok(_) if pool.len() < POOL => pool.push(input),
            Ok(_) => {
                place = (place + 1) % POOL;
                pool[place] = input;
            }
            Err(what) => {
                let shorter = shorten(target, input);
                report.outcomes = known.len();
                let _ended = news.send(News::Done(report, Some((what, shorter))));
                return;
            }
        }
    }
    report.outcomes = known.len();
    let _ended = news.send(News::Done(report, None));
}

/// Leaves out what is not needed for the find.
fn shorten(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let (mut size, mut attempts) = (input.len() / 2, 0);
    while size > 0 && attempts < SHORTENINGS {
        let (mut at, mut shorter) = (0, false);
        while at < input.len() && attempts < SHORTENINGS {
            attempts += 1;
            let mut candidate = input.clone();
            candidate.drain(at..(at + size).min(input.len()));
            if run_one(target, &candidate).is_err() {
                (input, shorter) = (candidate, true);
            } else {
                at += size;
            }
        }
        if !shorter {
            size /= 2;
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &[u8] = b"boom";
    const TARGET: Target = Target {
        name: "x",
        run: |input| {
            assert!(!input.windows(4).any(|four| four == WORD));
            Outcome::of(&0)
        },
        longest: 99,
        words: &[],
    };

    #[test]
    fn what_does_not_hold_is_told_and_made_shorter() {
        assert!(run_one(&TARGET, b"bo om").is_ok());
        assert!(run_one(&TARGET, b"boom").unwrap_err().contains("assertion failed"));
        assert_eq!(shorten(&TARGET, b"before boom and after".to_vec()), WORD);
    }
}
