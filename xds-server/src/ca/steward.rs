//! Follows the Secret of the root while the server runs. Every replica takes in what it says, and says so; the one that leads writes the
//! steps of a rotation ([`super::next_step`] decides).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};
use weft_identity::clock::SharedClock;
use weft_identity::schedule::Moment;
use weft_identity::signer::{LeafLifetime, SignError, Signer};
use weft_kubernetes::files::{Files, FilesError, Held, SharedSecret};
use weft_kubernetes::{Leadership, Replicas, SayError};
use weft_runtime::shared::Reader;

use super::files::RootError;
use super::next_step::{Act, NEXT, OLD, ROOT, Watched, after, given, next_step, step_of, text};
use super::pair::make;
use super::root::signer_of;
use super::rotate::overlap;
use super::shared::{SECRET, SharedError, in_force, put};

/// How often the Secret is looked at.
pub const LOOK: Duration = Duration::from_secs(5);
/// After a write, and after files that are not in force yet: the keeper looks at them each second.
const SOON: Duration = Duration::from_secs(1);
/// How often a replica says anew which roots it has, in case somebody else has written to its Lease.
const AGAIN: Duration = Duration::from_secs(60);
/// How long an answer may take. Nothing is begun that might outlive our lead.
const ANSWER: Duration = Duration::from_secs(3);

/// What is needed.
#[derive(Debug)]
pub struct StewardParts {
    /// The Secret.
    pub secret: SharedSecret,
    /// What replicas say.
    pub replicas: Replicas,
    /// Whether this one leads.
    pub leadership: Leadership,
    /// The signer that is in force.
    pub signer: Reader<Signer>,
    /// Where its files are.
    pub state_dir: PathBuf,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// How long certificates live.
    pub lifetime: LeafLifetime,
    /// The time of day.
    pub clock: SharedClock,
    /// How often to look: [`LOOK`].
    pub look: Duration,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Steward {
    parts: StewardParts,
    started: Instant,
    watched: Watched,
    said: Option<(String, Instant)>,
    missing: Vec<String>,
}

/// The Secret cannot be followed, or not be written.
#[derive(Debug, thiserror::Error)]
enum StewardError {
    #[error(transparent)]
    Secret(#[from] FilesError),
    #[error("no answer of the API server within {} s", ANSWER.as_secs())]
    Late,
    #[error("the Secret is gone")]
    Gone,
    #[error(transparent)]
    Root(#[from] SharedError),
    #[error(transparent)]
    Files(#[from] RootError),
    #[error(transparent)]
    Said(#[from] SayError),
    #[error("a root in it cannot be used, and nothing changes: {0}")]
    Unusable(#[source] Box<SignError>),
}

impl Steward {
    /// Of these parts.
    #[must_use]
    pub fn new(parts: StewardParts) -> Self {
        Self { parts, started: Instant::now(), watched: Watched::default(), said: None, missing: Vec::new() }
    }

    /// For ever.
    pub async fn run(mut self) {
        loop {
            let pause = match self.turn().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, secret = SECRET, "the Secret of the root; signing as before");
                    self.parts.look
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks and acts once; says how long to rest.
    async fn turn(&mut self) -> Result<Duration, StewardError> {
        let held = within(self.parts.secret.read()).await??.ok_or(StewardError::Gone)?;
        let wall = self.parts.clock.now();
        let files = in_force(held.files(), &self.parts.state_dir, wall)?;
        put(&self.parts.state_dir, &files)?;
        let now = Moment { wall, ticks: self.started.elapsed() };
        let lasted = self.watched.lasted(held.rotation().mark, now);
        let ours = self.say().await?;
        let soon = SOON.min(self.parts.look);
        let expected = self.signer(&files, now.wall)?;
        if ours != expected {
            return Ok(soon);
        }
        if !self.parts.leadership.holds_for(ANSWER) {
            return Ok(self.parts.look);
        }
        let settled = step_of(&files).is_some() && self.settled(&expected).await?;
        let lasts = overlap(self.parts.lifetime.max);
        match next_step((&held.files(), &files), &held.rotation(), settled, lasted, lasts) {
            Some(act) => self.write(act, (held, files), now.wall).await.map(|()| soon),
            None => Ok(self.parts.look),
        }
    }

    /// Says which roots are in force here, and gives them.
    async fn say(&mut self) -> Result<String, StewardError> {
        let text = self.parts.signer.load().fingerprint();
        if self.said.as_ref().is_none_or(|(said, at)| *said != text || at.elapsed() > AGAIN) {
            within(self.parts.replicas.say_roots(&text)).await??;
            self.said = Some((text.clone(), Instant::now()));
        }
        Ok(text)
    }

    /// Whether every replica that runs has these roots in force.
    async fn settled(&mut self, expected: &str) -> Result<bool, StewardError> {
        let missing = within(self.parts.replicas.without_roots(expected)).await??;
        if self.missing != missing {
            if !missing.is_empty() {
                tracing::info!(replicas = missing.join(" "), "a rotation of the root waits for replicas to take it in");
            }
            self.missing.clone_from(&missing);
        }
        Ok(missing.is_empty())
    }

    /// What files make, tried out.
    fn signer(&self, files: &Files, now: SystemTime) -> Result<String, StewardError> {
        let root = text(files, ROOT).unwrap_or_default();
        let signer = signer_of(root, text(files, NEXT), text(files, OLD), self.parts.lifetime, now);
        signer.map(|signer| signer.fingerprint()).map_err(|error| StewardError::Unusable(Box::new(error)))
    }

    /// Writes an act, if the Secret is as it was read.
    async fn write(&mut self, act: Act, (held, files): (Held, Files), now: SystemTime) -> Result<(), StewardError> {
        let StewardParts { state_dir, trust_domain, lifetime, .. } = &self.parts;
        let made = match act {
            Act::Make => Some(make(trust_domain, &state_dir.join("ca").join(NEXT), now)?),
            _ => None,
        };
        // One that cannot sign gets no further than this.
        let next = match act {
            Act::Take => given(&files),
            Act::Sign => text(&files, NEXT).map(str::to_owned),
            _ => None,
        };
        if let Some(next) = next {
            signer_of(&next, None, None, *lifetime, now).map_err(|error| StewardError::Unusable(Box::new(error)))?;
        }
        let (files, rotation) = after(act, (files, &held.rotation()), made, now, overlap(lifetime.max));
        if within(self.parts.secret.write(held, files, &rotation)).await?? {
            tracing::info!(secret = SECRET, "{}", act.words());
        } else {
            tracing::info!(secret = SECRET, "somebody else has written the Secret meanwhile; looking again");
        }
        Ok(())
    }
}

async fn within<T>(call: impl Future<Output = T>) -> Result<T, StewardError> {
    timeout(ANSWER, call).await.map_err(|_| StewardError::Late)
}
