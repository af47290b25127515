//! `weft-node-agent capture`: its command line, and the way from there to the loop.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use thiserror::Error;
use tokio::time::sleep;
use weft_runtime::signals::Signals;

use super::{
    privileges::{self, PrivilegeError},
    probes::{owner::KubeletCommand, server::KubeletSettings},
    serve::{CaptureFailure, CaptureSettings, serve},
    settings::OnFailure,
    source::DirectorySource,
    status::StatusHandle,
};
use crate::{
    handover::{
        message::worker_count,
        server::{BindError, HandoverServer, HandoverSettings},
    },
    limits,
    pods::roster::ReleasePatience,
};

/// The user that the proxy half becomes when started as root: nobody's, as the default of its --run-as.
const PROXY_UID: u32 = 65534;

/// How often a successor looks whether its time has come: proxies that lost their capture half try to reach one as often.
const LOOK: Duration = Duration::from_millis(50);

/// Settings of the capture half.
#[derive(Args, Clone, Debug)]
pub struct CaptureOptions {
    /// Where the pods of this node are described: `dir:PATH`, the same Kubernetes YAML that the control plane reads.
    #[arg(long, env = "WEFT_SOURCE", value_parser = directory, value_name = "dir:PATH")]
    pub source: PathBuf,
    /// Permissions of that socket, octal.
    #[arg(long, default_value = "660", value_parser = octal, value_name = "MODE")]
    pub handover_mode: u32,
    /// User (and owner of the socket) that the proxy half runs as. Default: 65534 when started as root, which is what
    /// the proxy half becomes then (its --run-as); else this process's own user.
    #[arg(long, value_name = "UID")]
    pub proxy_uid: Option<u32>,
    /// Where the CNI plugin asks whether a new pod is captured. Without it pods start at once.
    #[arg(long, value_name = "PATH")]
    pub cni_socket: Option<PathBuf>,
    /// Where the proxy half asks whether a connection is a probe of the kubelet: `kubelet.sock` beside the handover socket. Without
    /// it strict pods refuse probes that come in plaintext.
    #[arg(long, value_name = "PATH")]
    pub kubelet_socket: Option<PathBuf>,
    /// Commands that are the kubelet, with commas between them: the name of the program's file, and its first arguments. Only processes
    /// of root in the node's own namespaces are considered.
    #[arg(
        long,
        env = "WEFT_KUBELET",
        default_value = "kubelet,k3s server,k3s agent,hyperkube kubelet",
        value_delimiter = ',',
        value_name = "COMMANDS"
    )]
    pub kubelet: Vec<KubeletCommand>,
    /// A process in the node's own namespaces.
    #[arg(long, default_value_t = 1, value_name = "PID")]
    pub node_process: u32,
    /// Lock file of the iptables programs.
    #[arg(long, default_value = "/run/weft/xtables.lock", value_name = "FILE")]
    pub xtables_lock: PathBuf,
    /// Where another capture half runs on this node, wait for its end and take over from it; without it that is an error. For an upgrade
    /// in which the new agent starts beside the old one.
    #[arg(long)]
    pub succeed: bool,
    /// Workers to make listeners for until a proxy says how many it has.
    #[arg(long, default_value_t = 1, value_parser = worker_count, value_name = "COUNT")]
    pub initial_workers: usize,
    /// How long plaintext connections of a joining pod may go on (permissive mode).
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub enrol_deadline: Duration,
    /// How long the mesh may take to hear that a pod joins or leaves. Meanwhile a joining pod's plaintext callers
    /// come in directly, and a leaving pod's calls are still captured.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub settle: Duration,
    /// How long a pod that leaves keeps serving after its callers were told, at least; not less than a second more than --settle.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub release_grace: Duration,
    /// After this a leaving pod's relayed connections are cut.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub release_deadline: Duration,
    /// Time between two audits of a pod; at least a second.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub audit_interval: Duration,
    /// What becomes of a permissive pod that is selected and cannot be captured. Strict ones are always closed.
    #[arg(long, value_enum, default_value = "close")]
    pub on_capture_failure: OnFailure,
    /// Take all rules away when told to end. Without it they stay, and pods are closed until the capture half is back.
    #[arg(long)]
    pub release_on_exit: bool,
}

impl CaptureOptions {
    fn settings(&self, node: &str, handover: &Path) -> CaptureSettings {
        let own = nix::unistd::geteuid().as_raw();
        let proxy = self.proxy_uid.unwrap_or(if own == 0 { PROXY_UID } else { own });
        // Root may look in with a tool of its own; everybody else is the proxy or nobody.
        let allowed = vec![own, proxy];
        let kubelet = self.kubelet_socket.clone().map(|socket| KubeletSettings {
            socket,
            allowed: allowed.clone(),
            commands: self.kubelet.clone(),
            node_process: self.node_process,
        });
        let handover = HandoverSettings {
            path: handover.to_path_buf(),
            mode: self.handover_mode,
            owner: (proxy != own).then_some((proxy, proxy)),
            allowed,
        };
        CaptureSettings {
            node: node.to_owned(),
            handover,
            cni_socket: self.cni_socket.clone(),
            kubelet,
            xtables_lock: self.xtables_lock.clone(),
            workers: self.initial_workers,
            enrol_deadline: self.enrol_deadline,
            settle: self.settle,
            on_failure: self.on_capture_failure,
            release: ReleasePatience { grace: self.release_grace, deadline: self.release_deadline },
            audit_interval: self.audit_interval.max(Duration::from_secs(1)),
            release_on_exit: self.release_on_exit,
        }
    }
}

/// Why the program ends with an error; every message names the next step.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No place for the socket.
    #[error("cannot make the directory {path}: {source}; choose another --handover path")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No runtime or signals.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
    /// The socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Capabilities.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The directory of YAML.
    #[error("--source: {0}")]
    Source(#[from] weft_manifest::WatchError),
    /// The loop.
    #[error(transparent)]
    Capture(#[from] CaptureFailure),
}

/// Runs the capture half of `node` until a signal, with its socket at `handover`. Must be called before other threads are started (capabilities belong to
/// threads), logging included.
///
/// # Errors
/// With the next step, for the terminal.
pub fn run(node: &str, handover: &Path, options: &CaptureOptions, status: StatusHandle) -> Result<(), CommandError> {
    let settings = options.settings(node, handover);
    if let Some(directory) = settings.handover.path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|source| CommandError::Directory { path: directory.to_path_buf(), source })?;
    }
    limits::raise_open_files();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        // Before giving up CAP_CHOWN, which the owner of the socket file may need.
        let server = tokio::select! {
            server = bind(&settings.handover, options.succeed) => server?,
            signal = signals.next() => {
                tracing::info!(%signal, "ending, and never took over");
                return Ok(());
            }
        };
        let missing = privileges::keep_only_needed()?;
        if !missing.is_empty() {
            tracing::info!(?missing, "runs without these capabilities; needed in special cases only, or refused below");
        }
        let memory = settings.handover.path.with_file_name("last-good");
        let (_source, wanted) = DirectorySource::start(&options.source, &memory, &settings.node).await?;
        let stop = async { tracing::info!(signal = %signals.next().await, "ending") };
        serve(settings, server, wanted, status, stop).await?;
        Ok(())
    })
}

/// The socket of this node's only capture half; with `succeed` as soon as the one before has ended.
async fn bind(settings: &HandoverSettings, succeed: bool) -> Result<HandoverServer, BindError> {
    let mut waiting = false;
    loop {
        match HandoverServer::bind(settings.clone()) {
            Err(BindError::InUse(path)) if succeed => {
                if !std::mem::replace(&mut waiting, true) {
                    tracing::info!(handover = %path.display(), "another capture half runs on this node: taking over when it ends");
                }
                sleep(LOOK).await;
            }
            outcome => return outcome,
        }
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("dir:").filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or_else(|| format!("{text:?}: expected dir:PATH"))
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("{text:?}: expected permissions such as 660"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BindError, HandoverServer, HandoverSettings, bind};

    #[tokio::test]
    async fn a_successor_waits_for_the_end_of_the_one_before_and_anybody_else_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("handover.sock");
        let settings = HandoverSettings { path, mode: 0o600, owner: None, allowed: Vec::new() };
        let old = HandoverServer::bind(settings.clone()).unwrap();
        assert!(matches!(bind(&settings, false).await, Err(BindError::InUse(_))));
        let successor = bind(&settings, true);
        tokio::pin!(successor);
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut successor).await;
        assert!(waited.is_err(), "while the other one lives");
        drop(old);
        successor.await.unwrap();
    }
}
