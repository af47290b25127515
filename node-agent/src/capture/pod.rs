//! One pod in the hands of the capture half: a task that obeys commands one by one, retries what failed, waits for old
//! connections to end, and audits. What touches the pod runs on the pod's own thread ([`super::held`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use weft_runtime::backoff::{self, Backoff};

use super::{
    adopt::Claim,
    alarm::Pace,
    batch::BatchSize,
    course::{Act, Standing},
    held::{Held, Place},
    join::CaptureError,
    netns::NetnsError,
    order::{Command, Left, PodSettings, Report},
    ruleset::Phase,
    settings::OnFailure,
};
use crate::{
    handover::{Family, hub::SessionId},
    pods::{PodSpec, PodUid},
};

/// How often it is looked whether old connections ended: as often as a person notices.
const OLD_POLL: Duration = Duration::from_millis(500);
/// How often it is looked whether the pod's name leads to another namespace by now, which nobody announces. One look takes
/// some 20 us.
const PLACE_POLL: Duration = Duration::from_secs(1);
/// How often it is looked whether a proxy still has listeners that it has not brought: bringing them ends the wait at once.
const HOLDER_POLL: Duration = Duration::from_millis(100);
/// A permissive pod is closed after this many failures in a row: the first may be a moment's lack of descriptors, and a
/// running pod's connections are worth a second attempt 100 ms later.
const PATIENCE: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    Captured,
    Releasing,
    /// Not selected: what is found captured is released, else it is clean.
    Examined,
    /// When nothing is relayed any more, and then at the latest.
    Clean(Instant),
}

pub(super) struct PodTask {
    spec: PodSpec,
    workers: usize,
    settings: Arc<PodSettings>,
    reports: mpsc::UnboundedSender<(PodUid, Report)>,
    held: Option<Held>,
    /// Cannot be captured, and its guards stand.
    closed: bool,
    goal: Goal,
    backoff: Backoff,
    dice: StdRng,
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    next_audit: Instant,
    pace: Pace,
    batches: BTreeMap<Family, BatchSize>,
    /// Listeners that a proxy brought, until they are taken.
    claim: Claim,
    /// Until then they are waited for.
    claim_by: Instant,
}

impl PodTask {
    pub(super) fn new(
        spec: PodSpec,
        workers: usize,
        settings: Arc<PodSettings>,
        reports: mpsc::UnboundedSender<(PodUid, Report)>,
    ) -> Self {
        Self {
            claim: Claim::new(),
            claim_by: Instant::now() + settings.await_holder,
            spec,
            workers,
            settings,
            reports,
            held: None,
            closed: false,
            goal: Goal::Examined,
            backoff: Backoff::new(backoff::Settings::default()),
            dice: StdRng::from_rng(&mut rand::rng()),
            due: None,
            failures: 0,
            next_audit: Instant::now(),
            pace: Pace::new(Instant::now()),
            batches: BTreeMap::new(),
        }
    }

    /// Until nobody tells anything any more; the rules stay then.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let due = self.due;
            let command = tokio::select! {
                command = commands.recv() => command,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.attempt().await;
                    continue;
                }
                () = self.alarmed() => {
                    let when = self.pace.announced(Instant::now());
                    self.next_audit = self.next_audit.min(when);
                    self.due = self.due.map(|due| due.min(when));
                    continue;
                }
            };
            match command {
                None => return,
                Some(Command::Capture(spec)) => {
                    // A pod whose namespace is no longer named is still where it was.
                    let netns = spec.netns.clone().or(self.spec.netns.take());
                    self.spec = PodSpec { netns, ..spec };
                    self.pursue(Goal::Captured).await;
                }
                Some(Command::Release) => self.pursue(Goal::Releasing).await,
                Some(Command::Clean(spec)) => {
                    self.spec = spec;
                    self.pursue(Goal::Examined).await;
                }
                Some(Command::Finish(latest)) => self.pursue(Goal::Clean(latest)).await,
                Some(Command::Adopt(claim)) => {
                    if self.held.is_none() && self.claim.is_empty() {
                        self.claim = claim;
                        self.due = self.due.map(|_| Instant::now());
                    }
                }
                Some(Command::Workers(workers)) => self.resize(workers).await,
                Some(Command::Sockets(session, family, count)) => self.dial(session, family, count).await,
            }
        }
    }

    async fn alarmed(&self) {
        match &self.held {
            Some(held) => held.alarmed().await,
            None => std::future::pending().await,
        }
    }

    fn tell(&self, report: Report) {
        // The loop ends only when the program does.
        let _unheard = self.reports.send((self.spec.uid.clone(), report));
    }

    async fn pursue(&mut self, goal: Goal) {
        self.goal = goal;
        self.attempt().await;
    }

    /// One step towards the goal; afterwards `due` says when the next one is.
    async fn attempt(&mut self) {
        let outcome = match self.goal {
            Goal::Captured => self.capture().await,
            Goal::Releasing => self.release().await,
            Goal::Examined => self.examine().await,
            Goal::Clean(latest) => self.clean(latest).await,
        };
        match outcome {
            Ok(next) => {
                self.failures = 0;
                self.backoff.reset();
                self.due = next;
            }
            Err(error) => {
                self.failures += 1;
                if matches!(error, CaptureError::Netns(NetnsError::Ended)) {
                    self.held = None;
                }
                self.due = Some(Instant::now() + self.backoff.next_delay(&mut self.dice));
                let left = match self.goal {
                    Goal::Captured if self.held.is_some() => Left::Captured,
                    Goal::Captured if self.closed => Left::Closed,
                    Goal::Captured => Left::Open,
                    _ => Left::Unwanted,
                };
                self.tell(Report::Failed { error, left });
            }
        }
    }

    async fn capture(&mut self) -> Result<Option<Instant>, CaptureError> {
        if let (Some(held), Some(name)) = (&self.held, &self.spec.netns)
            && held.is_elsewhere(name)
        {
            tracing::info!(pod = %self.spec.uid, "its network namespace is another one now");
            (self.held, self.closed) = (None, false);
        }
        let (strict, failed) = (self.spec.strict, self.failures > 0);
        match &mut self.held {
            None => {
                if !self.begin().await? {
                    return Ok(Some(Instant::now() + HOLDER_POLL));
                }
            }
            Some(held) => match held.now(strict, failed).joining() {
                Act::Join => held.join(strict, Some(Standing::Whole(held.phase)), &self.settings).await?,
                Act::Close => held.close(self.settings.enrol_deadline).await?,
                Act::WaitForOld => held.wait_for_old().await?,
                Act::Open | Act::Leave | Act::Stay => {}
            },
        }
        self.audit_when_due().await?;
        self.report_captured();
        let next = match self.held.as_ref().map(|held| (held.phase, held.settled)) {
            Some((Phase::EnrolOut(_), settled)) => settled,
            Some((Phase::Enrol(_), _)) => Instant::now() + OLD_POLL,
            _ => Instant::now() + PLACE_POLL,
        };
        self.until_next(next).await.map(Some)
    }

    /// False: listeners are to be brought first.
    async fn begin(&mut self) -> Result<bool, CaptureError> {
        let place = Place::enter(&self.spec).await?;
        if self.awaits_holder(&place).await? {
            return Ok(false);
        }
        let begun = self.take(&place).await;
        if begun.is_err() && self.must_close() {
            match place.close(&self.settings.installer).await {
                Ok(()) => self.closed = true,
                Err(error) => tracing::error!(pod = %self.spec.uid, %error, "cannot be closed either"),
            }
        }
        begun.map(|()| true)
    }

    /// A second set of listeners beside one that a proxy still serves would get a share of the calls, and lose it with one
    /// of the two.
    async fn awaits_holder(&self, place: &Place) -> Result<bool, CaptureError> {
        if !self.claim.is_empty() || self.settings.await_holder.is_zero() || !place.has_listeners().await? {
            return Ok(false);
        }
        let waits = Instant::now() < self.claim_by;
        if !waits {
            tracing::warn!(pod = %self.spec.uid, "nobody brings the listeners that are there: makes others");
        }
        Ok(waits)
    }

    /// Nothing is held unless all of it succeeds: the next attempt would take the rules for standing.
    async fn take(&mut self, place: &Place) -> Result<(), CaptureError> {
        let (mut held, standing) = place.hold(&self.settings, self.workers, self.claim.clone()).await?;
        held.join(self.spec.strict, standing, &self.settings).await?;
        self.claim.clear();
        (self.held, self.closed) = (Some(held), false);
        self.next_audit = Instant::now() + self.settings.audit_interval;
        Ok(())
    }

    fn must_close(&self) -> bool {
        self.spec.strict || (self.settings.on_failure == OnFailure::Close && self.failures + 1 >= PATIENCE)
    }

    async fn audit_when_due(&mut self) -> Result<(), CaptureError> {
        let Some(held) = self.held.as_mut().filter(|_| Instant::now() >= self.next_audit) else { return Ok(()) };
        self.next_audit = Instant::now() + self.settings.audit_interval;
        let found = held.audit().await?;
        self.pace.looked(Instant::now(), !found.is_clean());
        if !found.is_clean() {
            let what = serde_json::to_string(&found).unwrap_or_default();
            self.tell(Report::Repaired(what));
        }
        Ok(())
    }

    async fn release(&mut self) -> Result<Option<Instant>, CaptureError> {
        let Some(held) = &mut self.held else {
            // Never captured: nothing is relayed, and finishing removes what may be there.
            self.tell(Report::Releasing);
            self.tell(Report::Left);
            return Ok(None);
        };
        match held.now(self.spec.strict, self.failures > 0).leaving() {
            Act::Open => {
                held.open(self.settings.settle).await?;
                self.tell(Report::Releasing);
            }
            Act::Leave => held.leave().await?,
            Act::Join | Act::Close | Act::WaitForOld | Act::Stay => {}
        }
        if self.held.as_ref().is_some_and(|held| matches!(held.phase, Phase::Release(_))) {
            self.tell(Report::Left);
        }
        self.audit_when_due().await?;
        let settled =
            self.held.as_ref().filter(|held| matches!(held.phase, Phase::ReleaseIn(_))).map(|held| held.settled);
        self.until_next(settled.unwrap_or(self.next_audit)).await.map(Some)
    }

    /// When there is something to do again: the next step, an audit, a look for strays.
    async fn until_next(&mut self, step: Instant) -> Result<Instant, CaptureError> {
        let strays = match &mut self.held {
            Some(held) => held.forget_strays().await?,
            None => None,
        };
        Ok(strays.map_or(step, |strays| step.min(strays)).min(self.next_audit))
    }

    /// A pod that was captured when an earlier life of the capture half ended, and is not selected any more, leaves as it
    /// would have then: what proxies relay for it goes on.
    async fn examine(&mut self) -> Result<Option<Instant>, CaptureError> {
        if self.held.is_some() {
            return self.clean(Instant::now()).await;
        }
        let Some(place) = self.place_to_clean().await? else {
            self.tell(Report::Clean);
            return Ok(None);
        };
        if !place.is_touched(&self.settings.installer).await? {
            self.tell(Report::Clean);
            return Ok(None);
        }
        if self.awaits_holder(&place).await? {
            return Ok(Some(Instant::now() + HOLDER_POLL));
        }
        let claim = std::mem::take(&mut self.claim);
        if let Ok((mut held, Some(Standing::Whole(phase)))) = place.hold(&self.settings, self.workers, claim).await {
            held.phase = phase;
            let begun = held.leaves();
            self.goal = Goal::Releasing;
            self.next_audit = Instant::now() + self.settings.audit_interval;
            self.tell(Report::Leaving(held.listeners.clone()));
            self.held = Some(held);
            if begun {
                self.tell(Report::Releasing);
            }
            return self.release().await;
        }
        self.clean_at(&place).await
    }

    async fn clean(&mut self, latest: Instant) -> Result<Option<Instant>, CaptureError> {
        let place = match &self.held {
            Some(held) if Instant::now() < latest && held.is_relaying().await? => {
                self.audit_when_due().await?;
                return Ok(Some((Instant::now() + OLD_POLL).min(latest)));
            }
            Some(held) => Some(held.place.clone()),
            None => self.place_to_clean().await?,
        };
        match place {
            Some(place) => self.clean_at(&place).await,
            None => {
                self.tell(Report::Clean);
                Ok(None)
            }
        }
    }

    async fn clean_at(&mut self, place: &Place) -> Result<Option<Instant>, CaptureError> {
        place.clean(&self.settings.installer).await?;
        (self.held, self.closed) = (None, false);
        self.tell(Report::Clean);
        Ok(None)
    }

    /// None: there is no namespace that could hold anything of ours.
    async fn place_to_clean(&self) -> Result<Option<Place>, CaptureError> {
        // Without an address it is not proven to be the pod's own; looked at again when it has one (`pods::roster`).
        if self.spec.netns.is_none() || self.spec.addresses.is_empty() {
            return Ok(None);
        }
        match Place::enter(&self.spec).await {
            Ok(place) => Ok(Some(place)),
            Err(CaptureError::Netns(NetnsError::Open { .. } | NetnsError::Host(_) | NetnsError::BadName(_))) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn resize(&mut self, workers: usize) {
        self.workers = workers;
        let Some(held) = &mut self.held else { return };
        match held.resize(workers).await {
            Ok(Ok(())) => self.report_captured(),
            Ok(Err(error)) => self.tell(Report::NoListeners(error)),
            Err(error) => {
                self.held = None;
                self.tell(Report::Failed { error, left: Left::Captured });
                self.due = Some(Instant::now());
            }
        }
    }

    fn report_captured(&self) {
        if let Some(held) = &self.held {
            let (listeners, phase, old) = (held.listeners.clone(), held.phase, held.old.len());
            self.tell(Report::Captured { listeners, phase, old });
        }
    }

    async fn dial(&mut self, session: SessionId, family: Family, wanted: usize) {
        let mut sockets = Vec::new();
        if let Some(held) = &self.held {
            let count = self.batches.entry(family).or_default().next(wanted, std::time::Instant::now());
            match held.dial_sockets(family, count).await {
                Ok(made) => sockets = made,
                Err(error) => tracing::warn!(pod = %self.spec.uid, %error, "cannot make dial sockets"),
            }
        }
        self.tell(Report::Sockets(session, family, sockets));
    }
}
