//! One of several replicas leads, by a Lease (`coordination.k8s.io/v1`): whoever writes it with the `resourceVersion` that it has read.
//!
//! [`Leadership`] is what the leader asks before each thing that only one may do: it ends by itself when renewals do not get through,
//! before anybody else may begin.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use weft_runtime::drain;
use weft_runtime::shared::{self, Reader, Writer};

use crate::client::Client;
use crate::lease::{LIFE, LOOK, RENEWAL, Seen, Step, TERM, decide};

/// An API server that does not answer is asked again: three tries fit into a term.
const ANSWER: Duration = Duration::from_secs(3);

/// Whether we lead.
#[derive(Debug, Clone)]
pub struct Leadership {
    until: Reader<Option<Instant>>,
}

impl Leadership {
    /// Whether we lead now, and for this long to come, whatever happens to renewals.
    #[must_use]
    pub fn holds_for(&self, time: Duration) -> bool {
        self.until.load().is_some_and(|until| Instant::now() + time < until)
    }

    /// Completes when we (no longer) lead, or have led on.
    pub async fn changed(&mut self) {
        if self.until.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The API server refused, or did not answer.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("somebody else was faster")]
    Conflict,
    #[error("no answer within {} s", ANSWER.as_secs())]
    Late,
    #[error(transparent)]
    Api(Box<kube::Error>),
}

/// One of those who may lead.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    us: String,
    begin: Instant,
    /// As it was read or written last, with when we saw its `resourceVersion` first.
    known: Option<(Lease, Duration)>,
    until: Writer<Option<Instant>>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate({} for {})", self.us, self.name)
    }
}

impl Candidate {
    /// `replica` names us for people; a life of its own is added, so that a program that was restarted does not take itself for the
    /// leader that it was.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, replica: &str) -> (Self, Leadership) {
        let (until, reader) = shared::channel(None);
        let candidate = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            us: format!("{replica}_{:08x}", rand::random::<u32>()),
            begin: Instant::now(),
            known: None,
            until,
        };
        (candidate, Leadership { until: reader })
    }

    /// Runs for ever; at the drain it gives the lease back, and ends with it.
    pub async fn run(mut self, drain: drain::Watch) {
        let guard = loop {
            let pause = self.turn().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                guard = drain.signalled() => break guard,
            }
        };
        self.release().await;
        drop(guard);
        std::future::pending::<()>().await;
    }

    /// Looks and acts once; says how long to rest.
    async fn turn(&mut self) -> Duration {
        let ours = self.holder() == Some(&self.us);
        let mut outcome = if ours { Ok(()) } else { self.look().await };
        let step = decide(self.seen().as_ref(), &self.us, self.begin.elapsed());
        let mut pause = RENEWAL / 3;
        match step {
            Step::Wait(rest) => pause = rest,
            Step::Acquire | Step::Renew if outcome.is_ok() => outcome = self.put(Some(&self.us.clone())).await,
            Step::Acquire | Step::Renew => {}
        }
        match outcome {
            Ok(()) => {}
            Err(LeaseError::Conflict) => self.lose("somebody else has the lease"),
            Err(error) => tracing::warn!(%error, lease = self.name, "the lease of the leader"),
        }
        if self.until.load().is_some_and(|until| Instant::now() >= until) {
            self.lose("it could not be renewed in time");
        }
        pause.min(LOOK)
    }

    fn seen(&self) -> Option<Seen> {
        let (lease, renewed) = self.known.as_ref()?;
        let spec = lease.spec.clone().unwrap_or_default();
        let life = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let life = life.map_or(LIFE, Duration::from_secs);
        Some(Seen { holder: spec.holder_identity.unwrap_or_default(), renewed: *renewed, life })
    }

    fn holder(&self) -> Option<&String> {
        self.known.as_ref()?.0.spec.as_ref()?.holder_identity.as_ref()
    }

    async fn look(&mut self) -> Result<(), LeaseError> {
        let found = within(self.api.get_opt(&self.name)).await?;
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let before = self.known.take();
        self.known = found.map(|lease| match before {
            Some((known, renewed)) if version(&known) == version(&lease) => (lease, renewed),
            _ => (lease, self.begin.elapsed()),
        });
        // A renewal whose answer was lost: nobody knows how long that counts.
        if self.holder() == Some(&self.us)
            && let Some((_, renewed)) = &mut self.known
        {
            *renewed = Duration::ZERO;
        }
        Ok(())
    }

    /// Writes the lease as ours (or nobody's), if it is still as we know it.
    async fn put(&mut self, holder: Option<&str>) -> Result<(), LeaseError> {
        let sent = Instant::now();
        let before = self.known.as_ref().map(|(lease, _)| lease.clone()).unwrap_or_default();
        let lease = next(before, &self.name, holder, Timestamp::now());
        let how = PostParams::default();
        let written = if lease.metadata.resource_version.is_some() {
            within(self.api.replace(&self.name, &how, &lease)).await
        } else {
            within(self.api.create(&how, &lease)).await
        };
        match written {
            Ok(lease) => self.known = Some((lease, self.begin.elapsed())),
            Err(error) => {
                // It may have come through all the same; the next look tells.
                self.known = None;
                return Err(error);
            }
        }
        if holder.is_some() {
            if self.until.load().is_none() {
                tracing::info!(lease = self.name, us = self.us, "this replica leads");
            }
            self.until.publish(Some(sent + TERM));
        }
        Ok(())
    }

    fn lose(&mut self, why: &str) {
        if self.until.load().is_some() {
            tracing::warn!(lease = self.name, us = self.us, why, "this replica does not lead any more");
            self.until.publish(None);
            self.known = None;
        }
    }

    async fn release(&mut self) {
        if self.until.load().is_none() {
            return;
        }
        // First we stop, then others may begin.
        self.until.publish(None);
        match self.put(None).await {
            Ok(()) => tracing::info!(lease = self.name, "this replica gave the lease back"),
            Err(error) => tracing::warn!(%error, lease = self.name, "the lease could not be given back; it runs out"),
        }
    }
}

/// The lease as we want it; what others have written to it stays.
fn next(mut lease: Lease, name: &str, holder: Option<&str>, now: Timestamp) -> Lease {
    let before = lease.spec.take().unwrap_or_default();
    let changes = before.holder_identity.as_deref() != holder;
    let transitions = before.lease_transitions.unwrap_or_default();
    lease.metadata = ObjectMeta { name: Some(name.to_owned()), ..lease.metadata };
    lease.spec = Some(LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: i32::try_from(LIFE.as_secs()).ok(),
        lease_transitions: Some(transitions + i32::from(changes && holder.is_some())),
        acquire_time: if changes { holder.map(|_| MicroTime(now)) } else { before.acquire_time.clone() },
        renew_time: Some(MicroTime(now)),
        ..before
    });
    lease
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(ANSWER, call).await {
        Err(_) => Err(LeaseError::Late),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(LeaseError::Conflict),
        Ok(Err(cause)) => Err(LeaseError::Api(Box::new(cause))),
        Ok(Ok(value)) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;

    use super::next;

    #[test]
    fn a_lease_says_since_when_and_how_often_it_changed_hands() {
        let at = |second: u32| format!("2026-11-23T04:00:{second:02}Z").parse().unwrap();
        let lease = next(Lease::default(), "leader", Some("a"), at(0));
        let lease = next(lease, "leader", Some("a"), at(3));
        let spec = lease.spec.clone().unwrap();
        assert_eq!(
            (spec.lease_transitions, spec.acquire_time.unwrap().0, spec.renew_time.unwrap().0),
            (Some(1), at(0), at(3))
        );
        let lease = next(next(lease, "leader", None, at(4)), "leader", Some("b"), at(5));
        let spec = lease.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(2)));
        assert_eq!((lease.metadata.name.as_deref(), spec.acquire_time.unwrap().0), (Some("leader"), at(5)));
    }
}
