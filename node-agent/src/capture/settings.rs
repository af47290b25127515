//! How the capture half works: values that its command line fills in.

use std::{path::PathBuf, time::Duration};

use super::probes::server::KubeletSettings;
use crate::{handover::server::HandoverSettings, pods::roster::ReleasePatience};

/// What the capture half shows of itself (see [`super::status`]), beside the handover socket.
pub const STATUS_FILE: &str = "capture-status.json";

/// What becomes of a permissive pod that is selected and cannot be captured. Strict ones are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// Nothing goes in or out until it can be captured.
    Close,
    /// It goes on in plaintext.
    Open,
}

/// How the capture half works.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// This node's name.
    pub node: String,
    /// Socket for proxies.
    pub handover: HandoverSettings,
    /// Where the CNI plugin asks about new pods, if it may.
    pub cni_socket: Option<PathBuf>,
    /// Where proxies ask for the kubelet, if they may.
    pub kubelet: Option<KubeletSettings>,
    /// Lock file of the iptables programs; must be writable.
    pub xtables_lock: PathBuf,
    /// Workers to make listeners for until a proxy says how many it has.
    pub workers: usize,
    /// How long old plaintext connections of a joining pod may go on (permissive mode).
    pub enrol_deadline: Duration,
    /// How long the mesh may take to hear that a pod joins or leaves: between its calls and calls to it (permissive mode).
    pub settle: Duration,
    /// How patient a release is.
    pub release: ReleasePatience,
    /// Time between two audits of a pod; longer on nodes with many pods.
    pub audit_interval: Duration,
    /// What becomes of pods that cannot be captured.
    pub on_failure: OnFailure,
    /// Take every rule away at the end.
    pub release_on_exit: bool,
}
