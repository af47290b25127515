//! What the task of a pod is told, what it tells, and what all of them know.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::time::Instant;

use super::{
    adopt::Claim,
    install::Installer,
    join::CaptureError,
    ruleset::Phase,
    settings::OnFailure,
    socket::{Listeners, SocketError},
};
use crate::{
    handover::{Family, hub::SessionId},
    pods::PodSpec,
};

/// What every pod's task knows.
#[derive(Clone, Debug)]
pub(super) struct PodSettings {
    pub(super) installer: Installer,
    /// How long old plaintext connections may go on in permissive mode.
    pub(super) enrol_deadline: Duration,
    /// How long the mesh may take to hear that a pod joins or leaves.
    pub(super) settle: Duration,
    pub(super) audit_interval: Duration,
    pub(super) on_failure: OnFailure,
    /// How long a proxy that holds listeners from an earlier life of this half has to bring them.
    pub(super) await_holder: Duration,
}

/// What a pod's task is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Capture it, or take a change of it over.
    Capture(PodSpec),
    /// A proxy holds these listeners from an earlier life of the capture half.
    Adopt(Claim),
    /// The proxy has this many workers now.
    Workers(usize),
    /// Make dial sockets.
    Sockets(SessionId, Family, usize),
    /// Begin to release.
    Release,
    /// It is not selected: release what an earlier life of the capture half may have captured.
    Clean(PodSpec),
    /// Take everything out when nothing is relayed any more, and at this time at the latest.
    Finish(Instant),
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
    /// Not selected, but found captured: listeners stand again, and it leaves in order.
    Leaving(Listeners),
    /// Listeners for a new number of workers could not be made.
    NoListeners(SocketError),
    Sockets(SessionId, Family, Vec<OwnedFd>),
    /// The rules of a release are in force: what calls the pod goes direct.
    Releasing,
    /// Those of its last step are: what the pod calls goes direct, too.
    Left,
    /// Nothing of ours is left in the pod.
    Clean,
    /// It goes on trying.
    Failed {
        error: CaptureError,
        left: Left,
    },
    /// The auditor found and repaired something.
    Repaired(String),
}

/// What a pod is left in when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It is not to be captured any more.
    Unwanted,
    /// Its listeners and rules are there, only not proven to be as wanted.
    Captured,
    /// Nothing goes in or out.
    Closed,
    /// It talks in plaintext.
    Open,
}
