//! One pod in the hands of the capture half: a task that obeys commands one by one, retries what failed, waits for old
//! connections to end, and audits. What touches the pod runs on the pod's own thread.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use weft_runtime::backoff::{self, Backoff};

use super::{
    batch::BatchSize,
    install::{InstallError, Installer, Standing, Wanted},
    join::{CaptureError, Joining, OldConnections},
    netns::{Netns, NetnsError, NetnsThread},
    routes::{self, Routing},
    ruleset::Phase,
    socket::{Ipv6, Listeners, SocketError, dial_sockets},
};
use crate::{
    handover::{Family, hub::SessionId},
    pods::{PodSpec, PodUid},
};

/// How often it is looked whether old connections ended: as often as a person notices.
const OLD_POLL: Duration = Duration::from_millis(500);

/// What every pod's task knows.
#[derive(Clone, Debug)]
pub(super) struct PodSettings {
    pub(super) installer: Installer,
    /// How long old plaintext connections may go on in permissive mode.
    pub(super) enrol_deadline: Duration,
    /// How long the mesh may take to hear that a pod joins or leaves.
    pub(super) settle: Duration,
    pub(super) audit_interval: Duration,
}

/// What a pod's task is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Capture it, or take a change of it over.
    Capture(PodSpec),
    /// The proxy has this many workers now.
    Workers(usize),
    /// Make dial sockets.
    Sockets(SessionId, Family, usize),
    /// Begin to release.
    Release,
    /// Take everything of ours out, whoever put it there.
    Clean(PodSpec),
    /// Take everything out now.
    Finish,
}

/// What it tells.
#[derive(Debug)]
pub(super) enum Report {
    /// Listeners and rules stand; also after every change of either.
    Captured {
        listeners: Listeners,
        phase: Phase,
        old: usize,
    },
    /// Listeners for a new number of workers could not be made.
    NoListeners(SocketError),
    Sockets(SessionId, Family, Vec<OwnedFd>),
    /// The release rules are in force.
    Releasing,
    /// Nothing of ours is left in the pod.
    Clean,
    /// It goes on trying.
    Failed(CaptureError),
    /// The auditor found and repaired something.
    Repaired(String),
}

/// Everything that exists only while the pod is held. Dropping it closes the sockets and leaves the rules.
struct Held {
    thread: NetnsThread,
    inode: u64,
    listeners: Listeners,
    joining: Joining,
    phase: Phase,
    old: OldConnections,
    give_up: Instant,
    /// When the mesh has heard of the last step of joining or leaving, and the next one may follow.
    settled: Instant,
}

impl Held {
    fn leaves(&self) -> bool {
        matches!(self.phase, Phase::ReleaseIn | Phase::Release)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Captured,
    Releasing,
    Clean,
}

pub(super) struct PodTask {
    spec: PodSpec,
    workers: usize,
    settings: Arc<PodSettings>,
    reports: mpsc::UnboundedSender<(PodUid, Report)>,
    held: Option<Held>,
    goal: Goal,
    backoff: Backoff,
    dice: StdRng,
    due: Option<Instant>,
    failed: bool,
    next_audit: Instant,
    batches: BTreeMap<Family, BatchSize>,
}

impl PodTask {
    pub(super) fn new(
        spec: PodSpec,
        workers: usize,
        settings: Arc<PodSettings>,
        reports: mpsc::UnboundedSender<(PodUid, Report)>,
    ) -> Self {
        Self {
            spec,
            workers,
            settings,
            reports,
            held: None,
            goal: Goal::Clean,
            backoff: Backoff::new(backoff::Settings::default()),
            dice: StdRng::from_rng(&mut rand::rng()),
            due: None,
            failed: false,
            next_audit: Instant::now(),
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
            };
            match command {
                None => return,
                Some(Command::Capture(spec)) => {
                    // A pod whose namespace is no longer named is still where it was.
                    let netns = spec.netns.clone().or(self.spec.netns.take());
                    self.spec = PodSpec { netns, ..spec };
                    self.goal = Goal::Captured;
                    self.attempt().await;
                }
                Some(Command::Release) => {
                    self.goal = Goal::Releasing;
                    self.attempt().await;
                }
                Some(Command::Clean(spec)) => {
                    self.spec = spec;
                    self.goal = Goal::Clean;
                    self.attempt().await;
                }
                Some(Command::Finish) => {
                    self.goal = Goal::Clean;
                    self.attempt().await;
                }
                Some(Command::Workers(workers)) => self.resize(workers).await,
                Some(Command::Sockets(session, family, count)) => self.dial(session, family, count).await,
            }
        }
    }

    fn tell(&self, report: Report) {
        // The loop ends only when the program does.
        let _unheard = self.reports.send((self.spec.uid.clone(), report));
    }

    /// One step towards the goal; afterwards `due` says when the next one is.
    async fn attempt(&mut self) {
        let outcome = match self.goal {
            Goal::Captured => self.capture().await,
            Goal::Releasing => self.release().await,
            Goal::Clean => self.clean().await,
        };
        self.failed = outcome.is_err();
        match outcome {
            Ok(next) => {
                self.backoff.reset();
                self.due = next;
            }
            Err(error) => {
                if matches!(error, CaptureError::Netns(NetnsError::Ended)) {
                    self.held = None;
                }
                self.due = Some(Instant::now() + self.backoff.next_delay(&mut self.dice));
                self.tell(Report::Failed(error));
            }
        }
    }

    async fn capture(&mut self) -> Result<Option<Instant>, CaptureError> {
        if self.moved() {
            self.held = None;
        }
        match &self.held {
            None => self.begin().await?,
            Some(held) if self.failed || held.leaves() => {
                let standing = held.phase;
                self.join(Some(Standing::Whole(standing))).await?;
            }
            Some(held) if held.phase != Phase::Steady && self.spec.strict => self.join(None).await?,
            Some(held) if held.phase == Phase::EnrolOut && Instant::now() < held.settled => {}
            Some(held) if held.phase == Phase::EnrolOut => self.close().await?,
            Some(held) if held.phase == Phase::Enrol => self.wait_for_old().await?,
            Some(_) => self.audit().await?,
        }
        self.report_captured();
        Ok(Some(match self.held.as_ref().map(|held| (held.phase, held.settled)) {
            Some((Phase::EnrolOut, settled)) => settled,
            Some((Phase::Enrol, _)) => Instant::now() + OLD_POLL,
            _ => self.next_audit,
        }))
    }

    /// The same name may lead to another namespace after a restart of the pod's sandbox.
    fn moved(&self) -> bool {
        let (Some(held), Some(name)) = (&self.held, &self.spec.netns) else { return false };
        Netns::open(name).is_ok_and(|now| now.inode() != held.inode)
    }

    async fn begin(&mut self) -> Result<(), CaptureError> {
        let name = self.spec.netns.as_deref().ok_or(CaptureError::Unplaced)?;
        let netns = Netns::open(name)?;
        let inode = netns.inode();
        let thread = netns.start_thread(self.spec.addresses.clone()).await?;
        let (workers, installer) = (self.workers, self.settings.installer.clone());
        let (listeners, joining, standing) = thread
            .run(move || -> Result<_, CaptureError> {
                let ipv6 = Ipv6::detect();
                let listeners = Listeners::open(workers, ipv6.families())?;
                let standing = installer.standing(listeners.ports, ipv6)?;
                let joining = Joining { installer, ports: listeners.ports, ipv6 };
                Ok((listeners, joining, standing))
            })
            .await??;
        let give_up = Instant::now() + self.settings.enrol_deadline;
        let (phase, old) = (Phase::Steady, OldConnections::new());
        self.held = Some(Held { thread, inode, listeners, joining, phase, old, give_up, settled: Instant::now() });
        let joined = self.join(standing).await;
        if joined.is_err() {
            // Without this the next attempt would take the rules for standing.
            self.held = None;
        }
        joined
    }

    async fn join(&mut self, standing: Option<Standing>) -> Result<(), CaptureError> {
        let (strict, deadline) = (self.spec.strict, self.settings.enrol_deadline);
        let Some(held) = &mut self.held else { return Ok(()) };
        let joining = held.joining.clone();
        (held.phase, held.old) = held.thread.run(move || joining.join(strict, standing)).await??;
        held.give_up = Instant::now() + deadline;
        held.settled = Instant::now() + self.settings.settle;
        self.next_audit = Instant::now() + self.settings.audit_interval;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), CaptureError> {
        let deadline = self.settings.enrol_deadline;
        let Some(held) = &mut self.held else { return Ok(()) };
        let joining = held.joining.clone();
        (held.phase, held.old) = held.thread.run(move || joining.close()).await??;
        held.give_up = Instant::now() + deadline;
        Ok(())
    }

    async fn wait_for_old(&mut self) -> Result<(), CaptureError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let (joining, old, give_up) = (held.joining.clone(), held.old.clone(), Instant::now() >= held.give_up);
        held.old = held.thread.run(move || joining.wait_for_old(&old, give_up)).await??;
        if held.old.is_empty() {
            held.phase = Phase::Steady;
        } else if Instant::now() >= self.next_audit {
            self.audit().await?;
        }
        Ok(())
    }

    async fn audit(&mut self) -> Result<(), CaptureError> {
        self.next_audit = Instant::now() + self.settings.audit_interval;
        let Some(held) = &self.held else { return Ok(()) };
        let wanted = Wanted { phase: held.phase, ports: held.joining.ports, ipv6: held.joining.ipv6 };
        let installer = self.settings.installer.clone();
        let found = held
            .thread
            .run(move || -> Result<_, CaptureError> {
                let audit = installer.audit(wanted)?;
                if !audit.is_clean() {
                    installer.apply(wanted)?;
                }
                Ok(audit)
            })
            .await??;
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
            return Ok(None);
        };
        match held.phase {
            Phase::Release if !self.failed => {
                self.audit().await?;
                return Ok(Some(self.next_audit));
            }
            Phase::ReleaseIn if !self.failed && Instant::now() < held.settled => return Ok(Some(held.settled)),
            Phase::ReleaseIn | Phase::Release => {
                let joining = held.joining.clone();
                held.thread.run(move || joining.leave()).await??;
                held.phase = Phase::Release;
                self.next_audit = Instant::now() + self.settings.audit_interval;
                return Ok(Some(self.next_audit));
            }
            Phase::Steady | Phase::EnrolOut | Phase::Enrol => {}
        }
        let joining = held.joining.clone();
        held.thread.run(move || joining.open()).await??;
        held.phase = Phase::ReleaseIn;
        held.settled = Instant::now() + self.settings.settle;
        let next = held.settled;
        self.tell(Report::Releasing);
        Ok(Some(next))
    }

    async fn clean(&mut self) -> Result<Option<Instant>, CaptureError> {
        let thread = match (&self.held, &self.spec.netns) {
            (Some(held), _) => Some(&held.thread),
            (None, None) => None,
            (None, Some(name)) => match Netns::open(name) {
                // Not proven to be the pod's own; looked at again when the pod has an address (`pods::roster`).
                Ok(_) if self.spec.addresses.is_empty() => None,
                Ok(netns) => {
                    let thread = netns.start_thread(self.spec.addresses.clone()).await?;
                    return self.clean_in(&thread, false).await;
                }
                // A namespace that is gone, or that we would never enter, holds nothing of ours.
                Err(NetnsError::Open { .. } | NetnsError::Host(_) | NetnsError::BadName(_)) => None,
                Err(error) => return Err(error.into()),
            },
        };
        match thread {
            Some(thread) => {
                self.clean_in(thread, true).await?;
                self.held = None;
            }
            None => self.tell(Report::Clean),
        }
        Ok(None)
    }

    /// Not thorough: a pod that never was captured, as most are at the start of the program. The policy rule is the first
    /// thing in and the last thing out, and asking for it costs no program run.
    async fn clean_in(&self, thread: &NetnsThread, thorough: bool) -> Result<Option<Instant>, CaptureError> {
        let installer = self.settings.installer.clone();
        let work = move || -> Result<(), CaptureError> {
            let ipv6 = Ipv6::detect();
            let mut found = thorough;
            for family in ipv6.families() {
                found |= routes::audit(*family).map_err(InstallError::from)? != Routing::default();
            }
            if found { Ok(installer.remove(ipv6)?) } else { Ok(()) }
        };
        thread.run(work).await??;
        self.tell(Report::Clean);
        Ok(None)
    }

    async fn resize(&mut self, workers: usize) {
        self.workers = workers;
        let Some(held) = &mut self.held else { return };
        let (mut listeners, families) = (held.listeners.clone(), held.joining.ipv6.families());
        let resized = held.thread.run(move || listeners.resize(workers, families).map(|()| listeners)).await;
        match resized {
            Ok(Ok(listeners)) => {
                held.listeners = listeners;
                self.report_captured();
            }
            Ok(Err(error)) => self.tell(Report::NoListeners(error)),
            Err(error) => {
                self.held = None;
                self.tell(Report::Failed(error.into()));
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
            match held.thread.run(move || dial_sockets(family, count)).await {
                Ok(Ok(made)) => sockets = made,
                Ok(Err(error)) => tracing::warn!(pod = %self.spec.uid, %error, "cannot make dial sockets"),
                Err(error) => tracing::warn!(pod = %self.spec.uid, %error, "cannot make dial sockets"),
            }
        }
        self.tell(Report::Sockets(session, family, sockets));
    }
}
