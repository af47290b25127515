//! Joining and leaving: rules, resets and transitions in one pod. Which of them follows is in [`super::course`].
//!
//! Works in the network namespace of the calling thread.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{
    connections::{self, ConnectionsError},
    conntrack,
    course::{self, Entry, Standing},
    install::{InstallError, Installer, Wanted},
    mark::CapturePorts,
    netns::NetnsError,
    ruleset::{Phase, Way},
    socket::{Ipv6, SocketError},
};
use crate::pods::UncapturedReason;

/// Why a pod is not captured as wanted; every message names the next step.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The pod's network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its rules and routes.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// Its listeners.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Its old connections.
    #[error(transparent)]
    Connections(#[from] ConnectionsError),
    /// Nobody said where it is.
    #[error("the pod's network namespace is not known: annotate the pod with weft.dev/netns")]
    Unplaced,
}

impl CaptureError {
    /// As metrics say it.
    #[must_use]
    pub fn reason(&self) -> UncapturedReason {
        match self {
            Self::Unplaced => UncapturedReason::Unplaced,
            Self::Netns(NetnsError::WrongPod { .. } | NetnsError::Unproven(_) | NetnsError::Host(_)) => {
                UncapturedReason::WrongNamespace
            }
            Self::Netns(_) => UncapturedReason::Namespace,
            Self::Socket(SocketError::HbonePortTaken) => UncapturedReason::HbonePortTaken,
            Self::Socket(_) => UncapturedReason::Sockets,
            Self::Install(_) => UncapturedReason::Rules,
            Self::Connections(_) => UncapturedReason::Connections,
        }
    }
}

/// One pod's rules, with what they depend on.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Changes rules.
    pub installer: Installer,
    /// Where the listeners are.
    pub ports: CapturePorts,
    /// Which families.
    pub ipv6: Ipv6,
}

/// Connections that were there before the pod joined, by cookie.
pub type OldConnections = BTreeSet<u64>;

impl Joining {
    /// Captures the pod. `standing`: rules that are there (see [`Installer::standing`]).
    ///
    /// Strict: connections that are there are reset, before the rules so that the other side learns of it, and after for
    /// those that slipped in between. Permissive: the pod's own new calls are captured and it takes HBONE, but plaintext
    /// still comes in directly; [`Self::close`] must follow when its callers have heard that they should tunnel. A pod that
    /// nobody has called yet is captured whole, at once.
    ///
    /// # Errors
    /// [`CaptureError`]; calling again completes what was begun.
    pub fn join(&self, strict: bool, standing: Option<Standing>) -> Result<(Phase, OldConnections), CaptureError> {
        match course::entry(strict, standing, || self.is_new())? {
            Entry::Reset => self.reset_and_steady(),
            Entry::Close(older) => self.close(older),
            Entry::Keep => self.hold(Phase::Steady),
            Entry::Announce(older) => {
                if standing.is_none() {
                    forget_earlier();
                }
                self.hold(Phase::EnrolOut(older))
            }
        }
    }

    /// Captures what comes in plaintext, too. Connections that are there go on, and [`Self::wait_for_old`] must be called
    /// until they ended. `older`: the way of those that no transition has marked ([`Phase::older`]), as in [`Self::leave`].
    ///
    /// # Errors
    /// [`CaptureError`]; calling again completes what was begun.
    pub fn close(&self, older: Way) -> Result<(Phase, OldConnections), CaptureError> {
        let phase = Phase::Enrol(older);
        self.apply(phase)?;
        // After the rules: whatever comes later is captured.
        let old = connections::cookies(&connections::of_application(self.ipv6)?);
        if old.is_empty() {
            self.apply(Phase::Steady)?;
            return Ok((Phase::Steady, old));
        }
        Ok((phase, old))
    }

    /// Those of the old connections that still live. When there are none, or `give_up` (the rest is then reset), the
    /// steady rules are in force afterwards.
    ///
    /// # Errors
    /// [`CaptureError`]; calling again completes what was begun.
    pub fn wait_for_old(&self, old: &OldConnections, give_up: bool) -> Result<OldConnections, CaptureError> {
        let mut living = connections::of_application(self.ipv6)?;
        living.retain(|socket| old.contains(&socket.cookie()));
        if give_up && !living.is_empty() {
            connections::reset(&living)?;
            living.clear();
        }
        if living.is_empty() {
            self.apply(Phase::Steady)?;
        }
        Ok(connections::cookies(&living))
    }

    /// New calls to the pod, which is in phase `from`, go direct from now on; what is there goes on its way. [`Self::leave`] must follow
    /// when everybody whom the pod calls has heard of it.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn open(&self, from: Phase) -> Result<Phase, CaptureError> {
        if from == Phase::Steady {
            forget_earlier();
        }
        let phase = Phase::ReleaseIn(from.older());
        Ok(self.apply(phase).map(|()| phase)?)
    }

    /// New calls of the pod go direct from now on, too.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn leave(&self, older: Way) -> Result<Phase, CaptureError> {
        let phase = Phase::Release(older);
        Ok(self.apply(phase).map(|()| phase)?)
    }

    /// A pod that nobody has ever called, and that has no connection.
    fn is_new(&self) -> Result<bool, CaptureError> {
        let called = connections::was_called().map_err(ConnectionsError::from)?;
        Ok(!called && connections::of_application(self.ipv6)?.is_empty())
    }

    fn reset_and_steady(&self) -> Result<(Phase, OldConnections), CaptureError> {
        connections::reset(&connections::of_application(self.ipv6)?)?;
        self.apply(Phase::Steady)?;
        connections::reset(&connections::of_application(self.ipv6)?)?;
        Ok((Phase::Steady, OldConnections::new()))
    }

    fn hold(&self, phase: Phase) -> Result<(Phase, OldConnections), CaptureError> {
        self.apply(phase)?;
        Ok((phase, OldConnections::new()))
    }

    fn apply(&self, phase: Phase) -> Result<(), InstallError> {
        self.installer.apply(Wanted { phase, ports: self.ports, ipv6: self.ipv6 }).map(drop)
    }
}

/// Before the rules of a first transition: conntrack was off until now.
fn forget_earlier() {
    if let Err(error) = conntrack::forget_marked() {
        tracing::info!(%error, "conntrack keeps what earlier transitions marked; connections with the same ports may break (nf_conntrack_netlink is missing?)");
    }
}
