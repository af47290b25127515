//! Keeps the signer true to its files while the server runs: a given certificate that was replaced, and a root that is
//! rotated, step by step.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use weft_identity::clock::SharedClock;
use weft_identity::schedule::Moment;
use weft_identity::signer::{LeafLifetime, Signer};
use weft_runtime::metrics::Registry;
use weft_runtime::shared::{self, Reader, Writer};

use super::files::{RootError, remove, replace, unusable};
use super::given::{Given, Texts};
use super::root::{RootSource, files_of, given, given_signer, load, write_roots};
use super::rotate::{Phase, Stamp, end_step, overlap, phase};

/// How often the files are looked at: three `stat`s.
const LOOK: Duration = Duration::from_secs(1);

/// What makes the CA.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Where the server keeps its state.
    pub state_dir: PathBuf,
    /// Where the root comes from.
    pub source: RootSource,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// How long certificates live.
    pub lifetime: LeafLifetime,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Keeper {
    settings: CaSettings,
    clock: SharedClock,
    started: Instant,
    signer: Writer<Signer>,
    metrics: KeeperMetrics,
    /// The files as they were when they were loaded last, or tried to.
    seen: Vec<Option<FileStamp>>,
    /// The files could be used.
    good: bool,
    stamp: Option<Stamp>,
    /// Where the root is given by files.
    given: Option<Given>,
    looked: Moment,
}

type FileStamp = (u64, u64, i64, i64);

impl Keeper {
    /// Loads the CA, or makes it, and gives the signer that is always the one in force.
    ///
    /// # Errors
    /// As [`load`].
    pub fn open(
        settings: CaSettings,
        clock: SharedClock,
        registry: &Registry,
    ) -> Result<(Self, Reader<Signer>), RootError> {
        let now = clock.now();
        let early = stamps(&settings);
        let signer = load(&settings.state_dir, &settings.source, &settings.trust_domain, settings.lifetime, now)?;
        let metrics = KeeperMetrics::new(registry);
        // Files that were there before loading: one that changed meanwhile is loaded again. Those that loading made are known.
        let seen = early.into_iter().zip(stamps(&settings)).map(|(early, late)| early.or(late)).collect();
        let (signer, reader) = shared::channel(signer);
        let started = Instant::now();
        let looked = Moment { wall: now, ticks: Duration::ZERO };
        let given = given_texts(&settings)?.map(Given::new);
        let mut keeper =
            Self { settings, clock, started, signer, metrics, seen, good: true, stamp: None, given, looked };
        keeper.stamp = keeper.read_stamp();
        keeper.show(keeper.phase());
        Ok((keeper, reader))
    }

    /// Looks for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look(Moment { wall: self.clock.now(), ticks: self.started.elapsed() });
        }
    }

    /// One look at files and clock.
    fn look(&mut self, now: Moment) {
        self.reload(now);
        if let Err(error) = self.pass(now) {
            tracing::error!(%error, "the given root cannot be used; signing as before");
        }
        if self.settings.source == RootSource::Own
            && self.good
            && let Err(error) = self.step(now)
        {
            tracing::error!(%error, "the rotation of the root does not go on; trying again");
        }
        self.looked = now;
    }

    /// Where the rotation is; [`Phase::Steady`] when that cannot be read.
    fn phase(&self) -> Phase {
        match self.settings.source {
            RootSource::Own | RootSource::Shared => phase(&self.settings.state_dir).unwrap_or(Phase::Steady),
            RootSource::Given { .. } => self.given.as_ref().map_or(Phase::Steady, Given::phase),
        }
    }

    fn reload(&mut self, now: Moment) {
        let seen = stamps(&self.settings);
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let loaded = self.load(now);
        self.good = loaded.is_ok();
        match loaded {
            Ok(signer) => {
                tracing::info!(
                    roots = signer.roots().certificates().len(),
                    phase = self.phase().words(),
                    "the CA's files changed and are in force; nodes read the roots in root-cert.pem"
                );
                self.signer.publish(signer);
                self.show(self.phase());
            }
            Err(error) => tracing::error!(%error, "the CA's files changed and cannot be used; signing as before"),
        }
    }

    /// Loads the files as they are now.
    fn load(&mut self, now: Moment) -> Result<Signer, RootError> {
        let CaSettings { state_dir, source, trust_domain, lifetime } = &self.settings;
        let texts = given_texts(&self.settings)?;
        let Some((given, texts)) = self.given.as_mut().zip(texts) else {
            return load(state_dir, source, trust_domain, *lifetime, now.wall);
        };
        // By itself first: what cannot sign is not waited for.
        let alone = given_signer(&Given::new(texts.clone()), *lifetime, now.wall);
        let alone = alone.map_err(|error| unusable(state_dir, error))?;
        let known = self.signer.load();
        let is_known =
            alone.roots().certificates().first().is_some_and(|root| known.roots().certificates().contains(root));
        given.change(texts, is_known, now.ticks);
        let signer = given_signer(given, *lifetime, now.wall).map_err(|error| unusable(state_dir, error))?;
        write_roots(state_dir, &signer)?;
        Ok(signer)
    }

    /// A given root that was waited for long enough signs; one that was kept for long enough goes.
    fn pass(&mut self, now: Moment) -> Result<(), RootError> {
        let Some(given) = &mut self.given else { return Ok(()) };
        let CaSettings { state_dir, lifetime, .. } = &self.settings;
        let is_over = self.signer.load().validity().is_expired(now.wall);
        let mut next = given.clone();
        if !next.pass(overlap(lifetime.max), is_over, now.ticks) {
            return Ok(());
        }
        let signer = given_signer(&next, *lifetime, now.wall).map_err(|error| unusable(state_dir, error))?;
        write_roots(state_dir, &signer)?;
        *given = next;
        tracing::info!(
            roots = signer.roots().certificates().len(),
            phase = given.phase().words(),
            "a given root that has changed"
        );
        self.signer.publish(signer);
        self.show(self.phase());
        Ok(())
    }

    /// Goes to the next step of a rotation when this one has lasted long enough.
    fn step(&mut self, now: Moment) -> Result<(), RootError> {
        let phase = phase(&self.settings.state_dir)?;
        let path = stamp_path(&self.settings.state_dir);
        if phase == Phase::Steady {
            if self.stamp.take().is_some() {
                remove(&path)?;
            }
            return Ok(());
        }
        let stamp = match self.stamp {
            Some(stamp) if stamp.phase == phase => stamp.corrected(self.looked, now),
            _ => Stamp::new(phase, now.wall),
        };
        if self.stamp != Some(stamp) {
            replace(&path, &serde_json::to_vec(&stamp).unwrap_or_default(), 0o600)?;
            self.stamp = Some(stamp);
        }
        if stamp.is_over(overlap(self.settings.lifetime.max), now.wall) {
            end_step(&self.settings.state_dir, phase)?;
            self.reload(now);
        }
        Ok(())
    }

    /// One that cannot be read means that the step begins anew: later than it could be, never too early.
    fn read_stamp(&self) -> Option<Stamp> {
        let text = std::fs::read(stamp_path(&self.settings.state_dir)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn show(&self, phase: Phase) {
        let signer = self.signer.load();
        let seconds = signer.validity().not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.metrics.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.metrics.roots.set(i64::try_from(signer.roots().certificates().len()).unwrap_or(i64::MAX));
        self.metrics.step.set(match phase {
            Phase::Steady => 0,
            Phase::Trust => 1,
            Phase::Retire => 2,
        });
    }
}

/// The files of a given root; none if it is not given.
fn given_texts(settings: &CaSettings) -> Result<Option<Texts>, RootError> {
    match &settings.source {
        RootSource::Given { certificate, key, more_roots } => given(certificate, key, more_roots.as_deref()).map(Some),
        RootSource::Own | RootSource::Shared => Ok(None),
    }
}

fn stamp_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca/rotation.json")
}

/// A file that has all of these in common with an earlier look was not changed since: inode, size, change time.
fn stamps(settings: &CaSettings) -> Vec<Option<FileStamp>> {
    let stamp = |path: PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
    };
    files_of(&settings.state_dir, &settings.source).into_iter().map(stamp).collect()
}

#[derive(Debug, Clone, Default)]
struct KeeperMetrics {
    expiry: Gauge,
    roots: Gauge,
    step: Gauge,
}

impl KeeperMetrics {
    fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|registry| {
            let help = "When the CA's own certificate expires, seconds since 1970";
            registry.register("weft_ca_expiry_timestamp_seconds", help, metrics.expiry.clone());
            registry.register("weft_ca_roots", "Roots that peers are told to accept", metrics.roots.clone());
            let help = "Rotation of the root: 0 none, 1 everybody learns the next, 2 the old one is still accepted";
            registry.register("weft_ca_rotation_step", help, metrics.step.clone());
        });
        metrics
    }
}

#[cfg(test)]
mod tests;
