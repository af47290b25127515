//! The steps of a rotation of the root. Each is one file that appears or goes, so a server that is killed at any moment finds
//! out where it was.
//!
//! ```text
//!           rotate-root              one life of certificates later            one more
//!  Steady ---------------> Trust ------------------------------------> Retire ----------> Steady
//!            + next.pem      everybody gets both roots;   + old.pem      the new one signs  - old.pem
//!                            the old one signs            next -> root
//! ```
//! "One life": a certificate that was issued before a step has expired, so that each one that is valid came with the roots,
//! or from the root, of that step. No peer ever meets a certificate of a root that it has not heard of.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weft_identity::schedule::Moment;

use super::files::{RootError, create, exists, remove, rename, replace};
use super::pair::{certificate_block, make, read_pair};

/// Where a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// One root.
    Steady,
    /// A second root is there, and given to everybody. The first one signs.
    Trust,
    /// The second one signs. The first one is still given to everybody.
    Retire,
}

impl Phase {
    /// In words, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Steady => "no rotation",
            Self::Trust => "step 1 of 2: everybody learns the next root",
            Self::Retire => "step 2 of 2: the new root signs, the old one is still accepted",
        }
    }
}

pub(super) fn root_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca/root.pem")
}

pub(super) fn next_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca/next.pem")
}

pub(super) fn old_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca/old.pem")
}

/// Where the rotation is, by the files that are there.
///
/// # Errors
/// The directory cannot be read.
pub fn phase(state_dir: &Path) -> Result<Phase, RootError> {
    Ok(match (exists(&next_path(state_dir))?, exists(&old_path(state_dir))?) {
        (true, _) => Phase::Trust,
        (false, true) => Phase::Retire,
        (false, false) => Phase::Steady,
    })
}

/// Makes the next root. The server that runs on this directory sees it within a second and does the rest.
///
/// # Errors
/// There is no root yet, or a rotation is under way.
pub fn begin(state_dir: &Path, trust_domain: &str, now: SystemTime) -> Result<(), RootError> {
    let path = root_path(state_dir);
    if !exists(&path)? {
        return Err(RootError::NoRoot { path });
    }
    match phase(state_dir)? {
        Phase::Steady => {}
        under_way => return Err(RootError::UnderWay(under_way.words())),
    }
    let path = next_path(state_dir);
    create(&path, &make(trust_domain, &path, now)?)
}

/// Ends a step: from [`Phase::Trust`] to [`Phase::Retire`] the next root takes the place of the old one, whose key is gone
/// then; from there the old one is forgotten.
pub(super) fn end_step(state_dir: &Path, phase: Phase) -> Result<(), RootError> {
    match phase {
        Phase::Steady => Ok(()),
        Phase::Trust => {
            let (root, next) = (root_path(state_dir), next_path(state_dir));
            read_pair(&next)?; // a half would take the place of a whole
            // Killed behind the next line: the step is not over, and this is done again.
            replace(&old_path(state_dir), certificate_block(&read_pair(&root)?).as_bytes(), 0o600)?;
            rename(&next, &root)
        }
        Phase::Retire => remove(&old_path(state_dir)),
    }
}

/// Since when a step is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) phase: Phase,
    /// Seconds since 1970.
    since: u64,
}

/// Two clocks that drift apart by more than this were not only read at different moments: somebody set one.
const SET: Duration = Duration::from_secs(2);

impl Stamp {
    pub(super) fn new(phase: Phase, now: SystemTime) -> Self {
        Self { phase, since: seconds(now) }
    }

    /// The time of day was set between two looks: what a step has lasted does not change.
    #[must_use]
    pub(super) fn corrected(self, before: Moment, now: Moment) -> Self {
        let passed = now.ticks.saturating_sub(before.ticks);
        let expected = before.wall + passed;
        let since = match now.wall.duration_since(expected) {
            Ok(ahead) if ahead > SET => self.since.saturating_add(ahead.as_secs()),
            Err(error) if error.duration() > SET => self.since.saturating_sub(error.duration().as_secs()),
            _ => self.since,
        };
        Self { since, ..self }
    }

    /// Whether the step has lasted for `overlap`.
    pub(super) fn is_over(self, overlap: Duration, now: SystemTime) -> bool {
        seconds(now).saturating_sub(self.since) >= overlap.as_secs().max(1)
    }
}

/// How long a step lasts: the longest life of a certificate, and a quarter more for clocks that differ and for whoever
/// renewed late.
pub(super) fn overlap(longest_life: Duration) -> Duration {
    longest_life + longest_life / 4 + Duration::from_secs(1)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(wall: u64, ticks: u64) -> Moment {
        Moment { wall: UNIX_EPOCH + Duration::from_secs(wall), ticks: Duration::from_secs(ticks) }
    }

    #[test]
    fn a_step_lasts_a_life_and_more_whatever_somebody_does_to_the_clock() {
        let life = Duration::from_secs(3600);
        let (begin, lasts) = (moment(1_000_000, 0), overlap(life));
        assert!(lasts > life);
        let stamp = Stamp::new(Phase::Trust, begin.wall);
        let at = |stamp: Stamp, wall: u64| stamp.is_over(lasts, moment(wall, 0).wall);
        assert!(!at(stamp, 1_003_600) && at(stamp, 1_004_501));
        // A day ahead after ten minutes, and back again ten minutes later.
        let ahead = stamp.corrected(moment(1_000_600, 600), moment(1_087_001, 601));
        assert!(!at(ahead, 1_087_001) && at(ahead, 1_087_001 + 3901));
        let back = ahead.corrected(moment(1_087_601, 1201), moment(1_001_202, 1202));
        assert!(!at(back, 1_003_600) && at(back, 1_004_502));
        let undisturbed = stamp.corrected(moment(1_000_600, 600), moment(1_000_601, 601));
        assert_eq!(undisturbed, stamp);
    }
}
