//! What the leading replica does next with the Secret of the root: pure. [`super::steward`] looks and writes.
//!
//! ```text
//!          asked for, or tls.* changed     all replicas have it: counted     overlap      all replicas ...        overlap
//!  steady ------------------------> trust ------------------------> trust ----------> retire ----------> retire ----------> steady
//!               + next.pem                     since, until              next -> root, + old.pem               - old.pem
//! ```
//! Each arrow is one write of the Secret as it was read, so that a leader that is killed, or is none any more, leaves nothing half done.
//! The overlap is counted from when no replica signs and hands out what was before: every certificate that is valid at its end was issued
//! in it.

use std::time::{Duration, SystemTime};

use weft_identity::schedule::Moment;
use weft_kubernetes::files::Files;
use weft_kubernetes::rotation::{Mark, Rotation, Step};

use super::pair::{certificate_block, of_tls};

/// The root that signs: certificate, then key.
pub(super) const ROOT: &str = "root.pem";
/// One that will sign.
pub(super) const NEXT: &str = "next.pem";
/// Certificate of one that signed.
pub(super) const OLD: &str = "old.pem";

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// What signs gets its place in the Secret: there was none, or one that is over ([`in_force`]).
    Adopt,
    /// A new root is made, and will sign.
    Make,
    /// The root in `tls.crt` and `tls.key` is another one by now, and will sign.
    Take,
    /// The step is in force with every replica: from now on it counts.
    Count(Step),
    /// The next root signs.
    Sign,
    /// The old root is over.
    Forget,
    /// Annotations that are not true.
    Correct,
}

impl Act {
    /// For the log.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Adopt => "the root that signs was not the one in root.pem; it is now",
            Self::Make => "a new root was made; every node learns it",
            Self::Take => "tls.crt is another root now; every node learns it",
            Self::Count(Step::Trust) => "every replica hands the next root out",
            Self::Count(Step::Retire) => "every replica signs with the new root",
            Self::Sign => "the new root signs; the old one is still accepted",
            Self::Forget => "the old root is over: the rotation is done",
            Self::Correct => "annotations that were not true",
        }
    }
}

/// The text of a file.
pub(super) fn text<'f>(files: &'f Files, name: &str) -> Option<&'f str> {
    files.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

/// The root in the form of a Secret of type `kubernetes.io/tls`, if there is one.
pub(super) fn given(files: &Files) -> Option<String> {
    let issuer = text(files, "ca.crt").unwrap_or_default();
    Some(of_tls(text(files, "tls.crt")?, text(files, "tls.key")?, issuer))
}

/// The files that count. Without `root.pem` the root of `tls.crt` and `tls.key` signs, or the one that does here already (`remembered`), since a
/// change of these is a rotation. One that cannot sign any more, because it is over, must not wait for a rotation: the next best one that
/// can takes its place. `None`: there is no root at all.
pub(super) fn in_force(
    mut files: Files,
    remembered: Option<String>,
    is_usable: impl Fn(&str) -> bool,
) -> Option<Files> {
    let given = given(&files);
    if !files.contains_key(ROOT) {
        let root = remembered.filter(|_| given.is_some()).or_else(|| given.clone())?;
        files.insert(ROOT.to_owned(), root.into_bytes());
    }
    if text(&files, ROOT).is_some_and(&is_usable) {
        return Some(files);
    }
    if text(&files, NEXT).is_some_and(&is_usable) {
        let next = files.remove(NEXT);
        files.extend(next.map(|next| (ROOT.to_owned(), next)));
    } else if let Some(given) = given.filter(|given| is_usable(given)) {
        files.insert(ROOT.to_owned(), given.into_bytes());
    }
    Some(files)
}

/// The step that is under way, by the files. One whose old root is still accepted ends first, whatever else is there.
pub(super) fn step_of(files: &Files) -> Option<Step> {
    if files.contains_key(OLD) {
        return Some(Step::Retire);
    }
    files.contains_key(NEXT).then_some(Step::Trust)
}

/// What to do now with the files as the Secret has `there` and as they are [`in_force`], if anything. `settled`: every replica that runs has what the Secret has (asked in a step only); `lasted`: for how long
/// the step has been counted.
pub(super) fn next_step(
    (there, files): (&Files, &Files),
    rotation: &Rotation,
    settled: bool,
    lasted: Option<Duration>,
    overlap: Duration,
) -> Option<Act> {
    if there != files {
        return Some(Act::Adopt);
    }
    let (root, given) = (text(files, ROOT).unwrap_or_default(), given(files));
    let Some(step) = step_of(files) else {
        let asked = rotation.requested.is_some();
        let untrue = rotation.mark.is_some() || rotation.given != given.is_some();
        return match given {
            Some(given) if certificate_block(&given) != certificate_block(root) => Some(Act::Take),
            Some(_) => (untrue || asked).then_some(Act::Correct),
            None if asked => Some(Act::Make),
            None => untrue.then_some(Act::Correct),
        };
    };
    if !settled {
        return None;
    }
    let Some((since, until)) = rotation.mark.filter(|mark| mark.step == step).and_then(|mark| mark.counted) else {
        return Some(Act::Count(step));
    };
    // Whoever shortens the life of certificates in a rotation must wait for those of before.
    let overlap = overlap.max(until.duration_since(since).unwrap_or_default());
    let over = lasted.is_some_and(|lasted| lasted >= overlap);
    over.then_some(match step {
        Step::Trust => Act::Sign,
        Step::Retire => Act::Forget,
    })
}

/// The Secret after an act: `files` are those in force, `made` is a new root, for [`Act::Make`].
pub(super) fn after(
    act: Act,
    (mut files, before): (Files, &Rotation),
    made: Option<Vec<u8>>,
    now: SystemTime,
    overlap: Duration,
) -> (Files, Rotation) {
    let given = given(&files);
    let mut rotation = Rotation { given: given.is_some(), ..before.clone() };
    let uncounted = |step| Some(Mark { step, counted: None });
    match act {
        Act::Adopt => {}
        Act::Make | Act::Take => {
            let next = if act == Act::Make { made } else { given.map(String::into_bytes) };
            files.extend(next.map(|next| (NEXT.to_owned(), next)));
            (rotation.requested, rotation.mark) = (None, uncounted(Step::Trust));
        }
        Act::Count(step) => rotation.mark = Some(Mark { step, counted: Some((now, now + overlap)) }),
        Act::Sign => {
            let old = certificate_block(text(&files, ROOT).unwrap_or_default());
            if let Some(next) = files.remove(NEXT) {
                files.extend([(OLD.to_owned(), old.into_bytes()), (ROOT.to_owned(), next)]);
                rotation.mark = uncounted(Step::Retire);
            }
        }
        Act::Forget => {
            files.remove(OLD);
            (rotation.mark, rotation.ended) = (None, Some(now));
        }
        Act::Correct => {
            (rotation.requested, rotation.mark) = (None, None);
        }
    }
    (files, rotation)
}

/// For how long a step has been counted, on a clock that nobody sets: from when this replica saw it begin. One that came later reads the
/// time of day for what was before it.
#[derive(Debug, Default)]
pub(super) struct Watched {
    looked: bool,
    step: Option<(Mark, Counted)>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    before: Duration,
    from: Duration,
}

impl Watched {
    /// At each look at the Secret.
    pub(super) fn lasted(&mut self, mark: Option<Mark>, now: Moment) -> Option<Duration> {
        let witnessed = std::mem::replace(&mut self.looked, true);
        let Some((mark, (since, _))) = mark.and_then(|mark| Some((mark, mark.counted?))) else {
            self.step = None;
            return None;
        };
        let counted = match self.step {
            Some((known, counted)) if known == mark => counted,
            _ => {
                let before = now.wall.duration_since(since).unwrap_or_default();
                let before = if witnessed { Duration::ZERO } else { before };
                Counted { before, from: now.ticks }
            }
        };
        self.step = Some((mark, counted));
        Some(counted.before + now.ticks.saturating_sub(counted.from))
    }
}

#[cfg(test)]
mod tests;
