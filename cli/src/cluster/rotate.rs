//! `weft certs rotate`: asks for a new root, says where a rotation is, waits for it.
//!
//! The replica of the control plane that leads takes the steps, each when it is due; so a rotation goes on whatever becomes of this
//! program. Keys do not pass through here: of the Secret only its metadata is asked for.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use serde::Serialize;
use weft_kubernetes::rotation::{Mark, RootSecret, Rotation, SECRET, Step, rfc3339};

use super::connect::with;
use super::options::RotateOptions;
use crate::format::Format;
use crate::output;

const NAMESPACE: &str = "weft-system";
/// Between two looks at the Secret; the leader looks every 5 s.
const LOOK: Duration = Duration::from_secs(1);
/// A step that is overdue by more than this waits for something.
const LATE: Duration = Duration::from_secs(60);
/// Tries to ask, when somebody else writes the Secret in between.
const TRIES: usize = 5;

/// Asks, says, waits.
///
/// # Errors
/// There is no root in the Secret, it is somebody else's, or it is not over in time.
pub fn run(options: &RotateOptions) -> anyhow::Result<ExitCode> {
    with(&options.cluster, |cluster| async move {
        let secret = RootSecret::new(cluster.client(), NAMESPACE);
        let end = Instant::now() + options.timeout;
        let mut said = if options.status { look(&secret).await?.0 } else { asked(&secret).await? };
        if options.output == Format::Table {
            output::line(&words(&said, SystemTime::now()))?;
        }
        while options.wait && is_under_way(&said) {
            if Instant::now() > end {
                bail!("not over in time; it goes on by itself: {}", words(&said, SystemTime::now()));
            }
            tokio::time::sleep(LOOK).await;
            let now = look(&secret).await?.0;
            if now != said && options.output == Format::Table {
                output::line(&words(&now, SystemTime::now()))?;
            }
            said = now;
        }
        if options.output == Format::Json {
            output::json(&Shown::of(&said))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn look(secret: &RootSecret) -> anyhow::Result<(Rotation, String)> {
    secret.look().await?.with_context(|| {
        format!(
            "there is no Secret {NAMESPACE}/{SECRET}: Weft is not installed, or was given its root by --ca-cert (then rotate that one, \
             docs/operations.md)"
        )
    })
}

/// What the Secret says when a rotation is asked for, or is under way.
async fn asked(secret: &RootSecret) -> anyhow::Result<Rotation> {
    for _ in 0..TRIES {
        let (rotation, version) = look(secret).await?;
        if is_under_way(&rotation) {
            return Ok(rotation);
        }
        if rotation.given {
            bail!("{GIVEN}");
        }
        if secret.ask(&version, SystemTime::now()).await? {
            return Ok(look(secret).await?.0);
        }
    }
    bail!("the Secret {NAMESPACE}/{SECRET} is written again and again by somebody else; try again")
}

const GIVEN: &str = "the root is that of tls.crt in the Secret weft-system/weft-ca, and whoever writes it rotates it: for cert-manager \
`cmctl renew -n weft-system CERTIFICATE`. Weft follows with both roots in force until nobody needs the old one: \
`weft certs rotate --status --wait`";

pub(super) fn is_under_way(rotation: &Rotation) -> bool {
    rotation.mark.is_some() || rotation.requested.is_some()
}

/// In words, for people.
pub(super) fn words(rotation: &Rotation, now: SystemTime) -> String {
    let due = |until: SystemTime| match until.duration_since(now) {
        Ok(left) => format!("at {} (in {})", rfc3339(until), whole(left)),
        Err(over) if over.duration() < LATE => "now".to_owned(),
        Err(over) => format!(
            "since {} already, and does not; the log of the weft-xds-server that leads says for whom it waits",
            whole(over.duration())
        ),
    };
    match rotation.mark {
        Some(Mark { step: Step::Trust, counted: None }) => {
            "Step 1 of 2: the next root is made; the replicas of weft-xds-server begin to hand it out. Nothing has to be done.".to_owned()
        }
        Some(Mark { step: Step::Trust, counted: Some((since, until)) }) => format!(
            "Step 1 of 2 since {}: every node learns the next root, the old one signs. Step 2 begins {}. Nothing has to be done.",
            rfc3339(since),
            due(until)
        ),
        Some(Mark { step: Step::Retire, counted: None }) => {
            "Step 2 of 2: the replicas of weft-xds-server begin to sign with the new root. Nothing has to be done.".to_owned()
        }
        Some(Mark { step: Step::Retire, counted: Some((since, until)) }) => format!(
            "Step 2 of 2 since {}: the new root signs, the old one is still accepted. It is forgotten {}. Nothing has to be done.",
            rfc3339(since),
            due(until)
        ),
        None => match (&rotation.requested, rotation.ended) {
            (Some(when), _) if is_late(when, now) => format!(
                "A new root was asked for ({when}), and nobody has begun: no weft-xds-server leads, its version is older, or it has its root from \
                 --ca-cert. Its log says more."
            ),
            (Some(when), _) => format!(
                "A new root was asked for ({when}); the weft-xds-server that leads makes it within some seconds, and takes all steps by itself."
            ),
            (None, Some(ended)) => format!("The root is not being rotated; the last rotation was over at {}.", rfc3339(ended)),
            (None, None) => "The root is not being rotated, and never was.".to_owned(),
        },
    }
}

/// Whether a step, or the beginning, should have come some time ago.
pub(super) fn is_overdue(rotation: &Rotation, now: SystemTime) -> bool {
    let step = rotation.mark.and_then(|mark| mark.counted).is_some_and(|(_, until)| now > until + LATE);
    step || (rotation.mark.is_none() && rotation.requested.as_ref().is_some_and(|asked| is_late(asked, now)))
}

/// Whether somebody has asked so long ago that the leader should have begun. By hand anything may be written there.
fn is_late(asked: &str, now: SystemTime) -> bool {
    humantime::parse_rfc3339(asked).is_ok_and(|asked| now.duration_since(asked).is_ok_and(|since| since > LATE))
}

fn whole(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// For scripts.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// `steady`, `requested`, `trust` or `retire`.
    state: &'static str,
    /// Since when the step is in force with every replica.
    since: Option<String>,
    /// How long it lasts at least.
    until: Option<String>,
    /// When the last rotation was over.
    ended: Option<String>,
    /// `weft`, or `tls` where somebody else writes `tls.crt`.
    source: &'static str,
}

impl Shown {
    fn of(rotation: &Rotation) -> Self {
        let counted = rotation.mark.and_then(|mark| mark.counted);
        let idle = if rotation.requested.is_some() { "requested" } else { "steady" };
        Self {
            state: rotation.mark.map_or(idle, |mark| mark.step.name()),
            since: counted.map(|(since, _)| rfc3339(since)),
            until: counted.map(|(_, until)| rfc3339(until)),
            ended: rotation.ended.map(rfc3339),
            source: if rotation.given { "tls" } else { "weft" },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rstest::rstest;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn rotation(step: Option<Step>, counted: bool, requested: bool, ended: bool) -> Rotation {
        let counted = counted.then(|| (at(0), at(4500)));
        Rotation {
            requested: requested.then(|| "1970-01-01T00:00:00Z".to_owned()),
            mark: step.map(|step| Mark { step, counted }),
            ended: ended.then(|| at(60)),
            given: false,
        }
    }

    #[rstest]
    #[case::never(None, false, false, false, "steady", "never was")]
    #[case::over(None, false, false, true, "steady", "over at 1970-01-01T00:01:00Z")]
    #[case::asked(None, false, true, true, "requested", "was asked for (1970-01-01T00:00:00Z)")]
    #[case::made(Some(Step::Trust), false, false, false, "trust", "Step 1 of 2: the next root is made")]
    #[case::learnt(Some(Step::Trust), true, false, false, "trust", "Step 2 begins at 1970-01-01T01:15:00Z (in 1h 5m)")]
    #[case::signs(Some(Step::Retire), false, false, false, "retire", "begin to sign with the new root")]
    #[case::kept(Some(Step::Retire), true, false, false, "retire", "forgotten at 1970-01-01T01:15:00Z (in 1h 5m)")]
    fn where_it_is_in_words_and_for_scripts(
        #[case] step: Option<Step>,
        #[case] counted: bool,
        #[case] requested: bool,
        #[case] ended: bool,
        #[case] state: &str,
        #[case] expected: &str,
    ) {
        let rotation = rotation(step, counted, requested, ended);
        let said = words(&rotation, at(600));
        assert!(said.contains(expected), "{said}");
        assert_eq!(Shown::of(&rotation).state, state);
        assert_eq!(is_under_way(&rotation), state != "steady");
    }

    #[test]
    fn a_step_that_is_overdue_says_whom_to_ask() {
        let asked = rotation(None, false, true, false);
        assert!(words(&asked, at(30)).contains("within some seconds"));
        assert!(words(&asked, at(90)).contains("nobody has begun"));
        assert!(is_overdue(&asked, at(90)) && !is_overdue(&asked, at(30)));
        let by_hand = Rotation { requested: Some("now".to_owned()), ..asked };
        assert!(words(&by_hand, at(90)).contains("asked for (now)"));
        let rotation = rotation(Some(Step::Trust), true, false, false);
        assert!(words(&rotation, at(4530)).contains("begins now"));
        let late = words(&rotation, at(4500 + 600));
        assert!(late.contains("since 10m already") && late.contains("log"), "{late}");
        assert!(is_overdue(&rotation, at(4500 + 600)) && !is_overdue(&rotation, at(4530)));
    }
}
