//! One certificate per identity, shared by its pods and renewed ahead of time.
//!
//! Three sides: whoever enrols pods calls [`ensure`](Store::ensure) and [`release`](Store::release); data workers read
//! [`credentials`](Store::credentials), which never waits; the [`Driver`] on the control thread asks the CA, as
//! [`schedule`](crate::schedule) says. An old certificate serves until it expires; an expired one is never given out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::Instant;
use weft_model::view::CertificateRow;
use weft_model::{Reason, SpiffeId};
use weft_runtime::shared::{self, Reader, Writer};

use crate::authority::{AuthorityError, CertificateAuthority};
use crate::certificate::{CertificateError, Credentials};
use crate::clock::SharedClock;
use crate::request::{Request, RequestError};
use crate::schedule::{Failure, Limits, Moment, Priority, Schedule, Ticket};
use crate::verify::Roots;

mod metrics;
mod row;

pub use metrics::StoreMetrics;

/// How the store asks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Requests at once, pauses, renewal.
    pub limits: Limits,
    /// The life to ask for; the CA may give less.
    pub ttl: Duration,
    /// One request's time limit.
    pub deadline: Duration,
}

impl Default for Settings {
    /// Ask for 24 hours, as ztunnel does (its `SECRET_TTL`): the CA decides and our own gives less.
    /// A signature takes the CA microseconds, so no answer within 10 seconds means that none will come.
    fn default() -> Self {
        Self { limits: Limits::default(), ttl: Duration::from_secs(24 * 3600), deadline: Duration::from_secs(10) }
    }
}

/// The longest sleep of the driver: a time of day that was set is noticed within it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

type Published = HashMap<SpiffeId, Arc<Credentials>>;

/// The certificates of one node. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    clock: SharedClock,
    started: Instant,
    planned: Mutex<Planned>,
    published: Reader<Published>,
    changed: Notify,
    metrics: StoreMetrics,
}

/// What is changed together, under one lock that is never held across an await.
struct Planned {
    schedule: Schedule,
    published: Writer<Published>,
    /// The roots that the CA gave last.
    bundle: Option<Arc<Roots>>,
    dice: StdRng,
}

impl Store {
    /// An empty store and the driver that fills it. `dice` makes jitter; seed it from the system in programs.
    pub fn new(
        authority: Arc<dyn CertificateAuthority>,
        settings: Settings,
        clock: SharedClock,
        dice: StdRng,
        metrics: StoreMetrics,
    ) -> (Self, Driver) {
        let (writer, published) = shared::channel(Published::new());
        let planned = Planned { schedule: Schedule::new(settings.limits), published: writer, bundle: None, dice };
        let shared = Arc::new(Shared {
            clock,
            started: Instant::now(),
            planned: Mutex::new(planned),
            published,
            changed: Notify::new(),
            metrics,
        });
        (Self { shared: shared.clone() }, Driver { shared, authority, settings })
    }

    /// One more pod uses the identity: its certificate is fetched, and renewed until the last user leaves.
    pub fn ensure(&self, identity: &SpiffeId, priority: Priority) {
        self.shared.lock().schedule.ensure(identity, priority);
        self.shared.changed.notify_one();
    }

    /// One pod less; with the last one the certificate and its key are forgotten.
    pub fn release(&self, identity: &SpiffeId) {
        let mut planned = self.shared.lock();
        if planned.schedule.release(identity) {
            planned.published.update(|old| {
                let mut next = old.clone();
                next.remove(identity);
                next
            });
            self.shared.metrics.forget(identity);
        }
    }

    /// The certificate of an identity, none while there is no valid one ([`Reason::NoCertificate`]). A hash look-up in a
    /// published snapshot: for data workers.
    #[must_use]
    pub fn credentials(&self, identity: &SpiffeId) -> Option<Arc<Credentials>> {
        let credentials = self.shared.published.read(|published| published.get(identity).cloned())?;
        (!credentials.validity().is_expired(self.shared.clock.now())).then_some(credentials)
    }

    /// As [`credentials`](Self::credentials), but waits for one that is being fetched, and lets its request go first.
    ///
    /// # Errors
    /// [`StoreError`] when there is none by the deadline, or at once when no pod uses the identity.
    pub async fn wait(&self, identity: &SpiffeId, deadline: Instant) -> Result<Arc<Credentials>, StoreError> {
        if let Some(credentials) = self.credentials(identity) {
            return Ok(credentials);
        }
        if !self.shared.lock().schedule.hurry(identity) {
            return Err(StoreError { identity: identity.clone(), detail: "no pod of this node uses it".to_owned() });
        }
        self.shared.changed.notify_one();
        let mut published = self.shared.published.clone();
        let arrival = published.wait_until(|_| self.credentials(identity).is_some());
        // What comes of the wait does not matter, only what is there at its end.
        let _outcome = tokio::time::timeout_at(deadline, arrival).await;
        self.credentials(identity).ok_or_else(|| {
            let status = self.shared.lock().schedule.status(identity, self.shared.now());
            let detail = match status {
                None => "no pod of this node uses it any more".to_owned(),
                Some(status) => status.last_error.unwrap_or_else(|| "the CA has not answered yet".to_owned()),
            };
            StoreError { identity: identity.clone(), detail }
        })
    }

    /// The CA may be back (a stream to the control plane stands again): who waits after a failure is asked for at once.
    pub fn retry(&self) {
        self.shared.lock().schedule.retry();
        self.shared.changed.notify_one();
    }

    /// The roots of the mesh are others than before: every certificate is renewed now, a few at a time. The old ones serve
    /// until then.
    pub fn renew_all(&self) {
        self.shared.lock().schedule.renew_all();
        self.shared.changed.notify_one();
    }

    /// The roots that the CA gave last; none before its first answer.
    #[must_use]
    pub fn bundle(&self) -> Option<Arc<Roots>> {
        self.shared.lock().bundle.clone()
    }

    /// Tells of every certificate that changes from now on. For caches of TLS configurations.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes { published: self.shared.lock().published.reader() }
    }

    /// Everything for `weft certs` (admin section `certs`), sorted by identity.
    #[must_use]
    pub fn rows(&self) -> Vec<CertificateRow> {
        let now = self.shared.now();
        let published = self.shared.published.load();
        let planned = self.shared.lock();
        let mut identities: Vec<_> = planned.schedule.identities().cloned().collect();
        identities.sort_unstable();
        identities
            .into_iter()
            .filter_map(|identity| {
                let status = planned.schedule.status(&identity, now)?;
                let credentials = published.get(&identity).map(AsRef::as_ref);
                Some(row::row(&identity, &status, credentials, now.wall))
            })
            .collect()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Tells that certificates changed.
#[derive(Debug, Clone)]
pub struct Changes {
    published: Reader<Published>,
}

impl Changes {
    /// Completes after the next change; never when the store is gone.
    pub async fn next(&mut self) {
        if self.published.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Planned> {
        // Every change is complete before anything could panic.
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment { wall: self.clock.now(), ticks: self.started.elapsed() }
    }

    fn answered(&self, ticket: &Ticket, answer: Result<Credentials, FetchError>) {
        let now = self.now();
        let identity = &ticket.identity;
        let mut planned = self.lock();
        let Planned { schedule, published, bundle, dice } = &mut *planned;
        match answer {
            Ok(credentials) => {
                let validity = credentials.validity();
                if !schedule.succeeded(ticket, validity, now, dice) {
                    return;
                }
                tracing::debug!(%identity, serial = credentials.serial(), "certificate issued");
                self.metrics.issued(identity, validity);
                let credentials = Arc::new(credentials);
                if bundle.as_ref().is_some_and(|bundle| !bundle.is_same_set(credentials.roots())) {
                    tracing::info!(roots = credentials.roots().certificates().len(), "the CA gives other roots");
                    for (other, held) in &*published.load() {
                        if !held.roots().is_same_set(credentials.roots()) {
                            schedule.renew_for_bundle(other, now);
                        }
                    }
                    self.changed.notify_one();
                }
                *bundle = Some(credentials.roots().clone());
                published.update(|old| {
                    let mut next = old.clone();
                    next.insert(identity.clone(), credentials);
                    next
                });
            }
            Err(error) => {
                self.metrics.failed(error.reason());
                if schedule.failed(ticket, (error.failure(), error.to_string()), now, dice) {
                    tracing::warn!(%identity, reason = error.reason().code(), %error, "no certificate");
                }
            }
        }
    }
}

/// Asks the CA. Run it on the control thread for as long as the program lives.
pub struct Driver {
    shared: Arc<Shared>,
    authority: Arc<dyn CertificateAuthority>,
    settings: Settings,
}

impl Driver {
    /// Never returns. Requests under way are dropped with it.
    pub async fn run(self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let now = self.shared.now();
            let (tickets, wake) = {
                let mut planned = self.shared.lock();
                let tickets = planned.schedule.start(now);
                (tickets, planned.schedule.next_wake(now))
            };
            for ticket in tickets {
                under_way.push(self.fetch(ticket));
            }
            tokio::select! {
                () = self.shared.changed.notified() => {}
                Some((ticket, answer)) = under_way.next() => self.shared.answered(&ticket, answer),
                () = tokio::time::sleep(wake.map_or(LONGEST_SLEEP, |wake| wake.min(LONGEST_SLEEP))) => {}
            }
        }
    }

    async fn fetch(&self, ticket: Ticket) -> (Ticket, Result<Credentials, FetchError>) {
        let answer = self.ask(&ticket.identity).await;
        (ticket, answer)
    }

    async fn ask(&self, identity: &SpiffeId) -> Result<Credentials, FetchError> {
        let Settings { ttl, deadline, .. } = self.settings;
        let Request { key, csr_pem } = Request::new(identity)?;
        let answer = tokio::time::timeout(deadline, self.authority.sign(&csr_pem, identity, ttl))
            .await
            .unwrap_or(Err(AuthorityError::Timeout(deadline)))?;
        Ok(Credentials::from_response(identity, &key, &answer, self.shared.clock.now())?)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Driver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl FetchError {
    fn failure(&self) -> Failure {
        match self {
            Self::Authority(AuthorityError::Refused { .. }) => Failure::Refused,
            Self::Authority(AuthorityError::Unavailable(_) | AuthorityError::Timeout(_))
            | Self::Request(_)
            | Self::Certificate(_) => Failure::Away,
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Authority(AuthorityError::Refused { reason, .. }) => *reason,
            Self::Authority(AuthorityError::Unavailable(_) | AuthorityError::Timeout(_))
            | Self::Request(_)
            | Self::Certificate(_) => Reason::NoCertificate,
        }
    }
}

/// There is no valid certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate for {identity}: {detail}")]
pub struct StoreError {
    /// Whose.
    pub identity: SpiffeId,
    /// The last error of the CA, or what is missing.
    pub detail: String,
}

impl StoreError {
    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::NoCertificate
    }
}

#[cfg(test)]
mod tests;
