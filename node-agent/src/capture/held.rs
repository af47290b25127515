//! One pod's namespace with what the capture half has there: each act is a closure on the pod's own thread.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::time::Instant;

use super::{
    adopt::{self, Claim},
    alarm::{Alarm, Subscriptions},
    connections, conntrack,
    course::{self, InHand, Standing},
    install::{Audit, InstallError, Installer, Wanted},
    join::{CaptureError, Joining, OldConnections},
    mark::CapturePorts,
    netns::{Netns, NetnsThread},
    order::PodSettings,
    routes::{self, Routing},
    ruleset::{Phase, Way},
    socket::{Ipv6, Listeners, SocketError, dial_sockets, migrate_waiting},
};
use crate::{handover::Family, pods::PodSpec};

/// When it is first looked for strays in a transition: by then whatever was on its way when the rules came has arrived.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// How long it rests at most between two looks, of which one takes 20 ms on a node with 100,000 entries (measured). Each rest is
/// twice the one before: strays come from connections that end, most of them in the first moments.
const LONGEST_REST: Duration = Duration::from_secs(8);

/// When it is looked for strays.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// The next time; none where the kernel cannot be asked.
    at: Option<Instant>,
    rest: Duration,
}

/// A pod's namespace that has been entered.
#[derive(Clone, Debug)]
pub(super) struct Place {
    thread: NetnsThread,
    inode: u64,
}

impl Place {
    /// Enters, after proof that the namespace is the pod's own.
    pub(super) async fn enter(spec: &PodSpec) -> Result<Self, CaptureError> {
        let name = spec.netns.as_deref().ok_or(CaptureError::Unplaced)?;
        let netns = Netns::open(name)?;
        let inode = netns.inode();
        Ok(Self { thread: netns.start_thread(spec.addresses.clone()).await?, inode })
    }

    /// Whether a life of the capture half has left something. The policy rule is the first thing in and the last thing
    /// out, and asking for it costs no program run; but somebody may have taken it away while nobody was there to see it,
    /// and rules without it close the pod for ever.
    pub(super) async fn is_touched(&self, installer: &Installer) -> Result<bool, CaptureError> {
        let installer = installer.clone();
        let look = move || -> Result<bool, InstallError> {
            let ipv6 = Ipv6::detect();
            for family in ipv6.families() {
                if routes::audit(*family)? != Routing::default() {
                    return Ok(true);
                }
            }
            installer.is_there(ipv6)
        };
        Ok(self.thread.run(look).await??)
    }

    /// Whether somebody, who can only be a proxy, has listeners of an earlier life of the capture half. Where the kernel has
    /// no list of sockets they cannot be proven to be the pod's either, and are replaced.
    pub(super) async fn has_listeners(&self) -> Result<bool, CaptureError> {
        let look = || connections::of_agent_listening(Ipv6::detect()).is_ok_and(|found| !found.is_empty());
        Ok(self.thread.run(look).await?)
    }

    /// Makes listeners, or keeps those of the claim, and says which rules stand. Changes no rule.
    pub(super) async fn hold(
        &self,
        settings: &PodSettings,
        workers: usize,
        claim: Claim,
    ) -> Result<(Held, Option<Standing>), CaptureError> {
        let installer = settings.installer.clone();
        let make = move || -> Result<_, CaptureError> {
            let ipv6 = Ipv6::detect();
            if let Err(error) = migrate_waiting(true) {
                tracing::debug!(%error, "connections that wait in a listener that is replaced may be reset");
            }
            // Before anything is looked at, so that no change in between is missed.
            let subscriptions = Subscriptions::make();
            let listeners = adopt::open(&claim, workers, ipv6)?;
            let standing = installer.standing(listeners.ports, ipv6)?;
            let joining = Joining { installer, ports: listeners.ports, ipv6 };
            Ok((subscriptions, listeners, joining, standing))
        };
        let (subscriptions, listeners, joining, standing) = self.thread.run(make).await??;
        let alarm = match subscriptions.and_then(Alarm::new) {
            Ok(alarm) => Some(alarm),
            Err(error) => {
                tracing::info!(%error, "no announcements of changes in this pod: audits by the clock only");
                None
            }
        };
        let (now, phase) = (Instant::now(), Phase::Steady);
        let place = self.clone();
        let old = OldConnections::new();
        Ok((Held { place, listeners, joining, alarm, phase, old, give_up: now, settled: now, strays: None }, standing))
    }

    /// Closes a pod that cannot be captured: the rules of a captured one, with nobody behind them. What it has of
    /// connections is reset, so that the other side learns of it.
    pub(super) async fn close(&self, installer: &Installer) -> Result<(), CaptureError> {
        let installer = installer.clone();
        let close = move || -> Result<(), CaptureError> {
            let ipv6 = Ipv6::detect();
            if let Ok(there) = connections::of_application(ipv6) {
                // Those that cannot be reset get no packet through either.
                let _left = connections::reset(&there);
            }
            let wanted = Wanted { phase: Phase::Steady, ports: CapturePorts::default(), ipv6 };
            Ok(installer.close(wanted)?)
        };
        self.thread.run(close).await?
    }

    /// Takes everything of ours out.
    pub(super) async fn clean(&self, installer: &Installer) -> Result<(), CaptureError> {
        let installer = installer.clone();
        let clean = move || -> Result<(), CaptureError> {
            let removed = installer.remove(Ipv6::detect());
            // Where it could not be set, it cannot and need not be set back.
            let _unchanged = migrate_waiting(false);
            Ok(removed?)
        };
        self.thread.run(clean).await?
    }
}

/// A pod with listeners of ours. Dropping it closes them and leaves the rules.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) listeners: Listeners,
    pub(super) phase: Phase,
    pub(super) old: OldConnections,
    /// When the mesh has heard of the last step of joining or leaving, and the next one may follow.
    pub(super) settled: Instant,
    give_up: Instant,
    /// Only in transitions that have any.
    strays: Option<Look>,
    joining: Joining,
    alarm: Option<Alarm>,
}

impl Held {
    pub(super) fn leaves(&self) -> bool {
        course::leaves(self.phase)
    }

    pub(super) fn now(&self, strict: bool, failed: bool) -> InHand {
        InHand { phase: self.phase, strict, settled: Instant::now() >= self.settled, failed }
    }

    /// The same name may lead to another namespace after a restart of the pod's sandbox.
    pub(super) fn is_elsewhere(&self, name: &str) -> bool {
        Netns::open(name).is_ok_and(|now| now.inode() != self.place.inode)
    }

    /// Completes when somebody changed rules or routes; never where the kernel does not say.
    pub(super) async fn alarmed(&self) {
        match &self.alarm {
            Some(alarm) => alarm.rings().await,
            None => std::future::pending().await,
        }
    }

    /// The changes up to now were ours.
    fn own_doing(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.forget();
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Joining) -> Result<T, CaptureError> + Send + 'static,
    ) -> Result<T, CaptureError> {
        let joining = self.joining.clone();
        self.place.thread.run(move || act(&joining)).await?
    }

    pub(super) async fn join(
        &mut self,
        strict: bool,
        standing: Option<Standing>,
        settings: &PodSettings,
    ) -> Result<(), CaptureError> {
        (self.phase, self.old) = self.run(move |joining| joining.join(strict, standing)).await?;
        self.give_up = Instant::now() + settings.enrol_deadline;
        self.settled = Instant::now() + settings.settle;
        self.own_doing();
        Ok(())
    }

    pub(super) async fn close(&mut self, deadline: Duration) -> Result<(), CaptureError> {
        let older = self.phase.older();
        (self.phase, self.old) = self.run(move |joining| joining.close(older)).await?;
        self.give_up = Instant::now() + deadline;
        self.own_doing();
        Ok(())
    }

    pub(super) async fn wait_for_old(&mut self) -> Result<(), CaptureError> {
        let (old, give_up) = (self.old.clone(), Instant::now() >= self.give_up);
        self.old = self.run(move |joining| joining.wait_for_old(&old, give_up)).await?;
        if self.old.is_empty() {
            self.phase = Phase::Steady;
            self.own_doing();
        }
        Ok(())
    }

    pub(super) async fn open(&mut self, settle: Duration) -> Result<(), CaptureError> {
        let from = self.phase;
        self.phase = self.run(move |joining| joining.open(from)).await?;
        self.settled = Instant::now() + settle;
        self.own_doing();
        Ok(())
    }

    pub(super) async fn leave(&mut self) -> Result<(), CaptureError> {
        let older = self.phase.older();
        self.phase = self.run(move |joining| joining.leave(older)).await?;
        self.own_doing();
        Ok(())
    }

    /// Whether a connection is relayed here, however short.
    pub(super) async fn is_relaying(&self) -> Result<bool, CaptureError> {
        self.run(|joining| Ok(connections::is_relaying(joining.ipv6)?)).await
    }

    /// Has conntrack forget strays when it is time; returns when the next time is.
    pub(super) async fn forget_strays(&mut self) -> Result<Option<Instant>, CaptureError> {
        if self.phase.older() == Way::Relayed {
            // What has no mark is the agent's then, whatever it was.
            self.strays = None;
            return Ok(None);
        }
        let now = Instant::now();
        let look = *self.strays.get_or_insert(Look { at: Some(now + FIRST_LOOK), rest: FIRST_LOOK });
        if look.at.is_some_and(|at| at <= now) {
            let at = match self.run(|_| Ok(conntrack::forget_strays())).await? {
                Ok(count) => {
                    tracing::debug!(count, "strays of conntrack forgotten");
                    Some(now + look.rest)
                }
                Err(error) => {
                    tracing::info!(%error, "cannot look for strays of conntrack; connections with their ports fail for 5 minutes");
                    None
                }
            };
            self.strays = Some(Look { at, rest: (look.rest * 2).min(LONGEST_REST) });
        }
        Ok(self.strays.and_then(|look| look.at))
    }

    /// Finds what was changed by somebody, and repairs it: guards, rules, routes, listeners.
    pub(super) async fn audit(&mut self) -> Result<Audit, CaptureError> {
        let (phase, mut listeners) = (self.phase, self.listeners.clone());
        let audit = move |joining: &Joining| -> Result<_, CaptureError> {
            // Somebody may have switched IPv6 on or off.
            let ipv6 = Ipv6::detect();
            let mut audit = joining.installer.mend(Wanted { phase, ports: joining.ports, ipv6 })?;
            audit.listeners = listeners.mend(ipv6.families())?;
            Ok((audit, listeners, ipv6))
        };
        let (audit, listeners, ipv6) = self.run(audit).await?;
        self.listeners = listeners;
        self.joining.ipv6 = ipv6;
        Ok(audit)
    }

    /// Listeners for another number of workers; the outer error is the thread's.
    pub(super) async fn resize(&mut self, workers: usize) -> Result<Result<(), SocketError>, CaptureError> {
        let mut listeners = self.listeners.clone();
        let resize =
            move |joining: &Joining| Ok(listeners.resize(workers, joining.ipv6.families()).map(|()| listeners));
        Ok(self.run(resize).await?.map(|listeners| self.listeners = listeners))
    }

    pub(super) async fn dial_sockets(&self, family: Family, count: usize) -> Result<Vec<OwnedFd>, CaptureError> {
        self.run(move |_| Ok(dial_sockets(family, count)?)).await
    }
}
