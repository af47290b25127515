//! The loop of the capture half: what the source wants, what the pods' tasks report and what proxies say comes together
//! here; the roster and the hub decide, the tasks and sessions do.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

pub use super::settings::{CaptureSettings, STATUS_FILE};
use super::{
    cni::CniServer,
    farewell::{Farewell, Step},
    install::{InstallError, Installer},
    placing::Placer,
    probes::server::{ProbeServer, ProbeServerError},
    status::StatusHandle,
    steward::Steward,
    told::Desk,
};
use crate::{
    handover::server::{BindError, HandoverServer},
    pods::PodSpec,
};

/// Releases and appearances of proxies are looked at this often; everything else is an event.
const TICK: Duration = Duration::from_millis(500);

/// How often it is looked whether this half may end, once it is told to.
const FAREWELL: Duration = Duration::from_millis(20);

/// Why the capture half cannot start or go on.
#[derive(Debug, Error)]
pub enum CaptureFailure {
    /// No packet filter.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// No socket for proxies.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No directory for the lock.
    #[error("cannot make the directory of {path}: {source}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No socket for the CNI plugin.
    #[error("cannot make the socket {path} of the CNI plugin: {source}; run as root, or choose another --cni-socket")]
    Cni {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No socket for questions about the kubelet.
    #[error(transparent)]
    Probes(#[from] ProbeServerError),
    /// The source of pods ended.
    #[error("the source of pods ended; the rules stay, restart the capture half")]
    SourceEnded,
}

/// Runs until `stop` completes. Rules stay in force afterwards unless told otherwise. The first value of `wanted` must
/// be a complete list: pods that are not in it are taken for gone.
///
/// # Errors
/// [`CaptureFailure`].
pub async fn serve(
    settings: CaptureSettings,
    server: HandoverServer,
    mut wanted: watch::Receiver<Arc<Vec<PodSpec>>>,
    status: StatusHandle,
    stop: impl Future<Output = ()>,
) -> Result<(), CaptureFailure> {
    if let Some(directory) = settings.xtables_lock.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|source| CaptureFailure::Lock { path: settings.xtables_lock.clone(), source })?;
    }
    let installer = Installer::detect(&settings.xtables_lock).await?;
    tracing::info!(backend = ?installer.backend(), node = settings.node, "capture half ready");
    status.change(|status| {
        status.node.clone_from(&settings.node);
        status.backend = Some(installer.backend());
    });
    let (from_proxies, mut proxies) = mpsc::channel(64);
    let (reports, mut reported) = mpsc::unbounded_channel();
    let (from_plugin, mut calls) = mpsc::channel(64);
    let plugin = settings.cni_socket.as_deref().map(listen).transpose()?;
    let probes = settings.kubelet.clone().map(ProbeServer::bind).transpose()?;
    let mut steward = Steward::new(settings, installer, status, reports);
    steward.tasks.spawn(server.serve(from_proxies));
    if let Some(plugin) = plugin {
        steward.tasks.spawn(plugin.serve(from_plugin));
    }
    if let Some(probes) = probes {
        steward.tasks.spawn(probes.serve(wanted.clone()));
    }
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    wanted.mark_changed();
    let mut list: Arc<Vec<PodSpec>> = Arc::default();
    let (mut listed, mut placer, mut placed) = (false, Placer::default(), Vec::new());
    let mut desk = Desk::default();
    let mut farewell: Option<Farewell> = None;
    loop {
        match farewell.as_mut().map(|farewell| farewell.step(steward.proxies(), Instant::now())) {
            Some(Step::End) => break,
            Some(Step::Close) => steward.close_listeners(),
            Some(Step::Wait) | None => {}
        }
        tokio::select! {
            () = &mut stop, if farewell.is_none() => farewell = Some(Farewell::begin(Instant::now())),
            () = sleep(FAREWELL), if farewell.is_some() => {}
            changed = wanted.changed() => {
                changed.map_err(|_| CaptureFailure::SourceEnded)?;
                list = wanted.borrow_and_update().clone();
                placed = placer.place(&desk.place(&list));
                if !std::mem::replace(&mut listed, true) {
                    steward.expect(&placed);
                }
                steward.follow(&placed);
            }
            Some((uid, report)) = reported.recv() => steward.hear(&uid, report),
            Some(event) = proxies.recv() => steward.proxy(event),
            Some(call) = calls.recv() => {
                desk.hear(call, Instant::now());
                if listed {
                    placed = placer.place(&desk.place(&list));
                    steward.follow(&placed);
                }
            }
            _ = tick.tick(), if listed => {
                let told = desk.place(&list);
                if placer.is_looking(&told) {
                    placed = placer.place(&told);
                }
                steward.follow(&placed);
                steward.show();
            }
            Some(_ended) = steward.tasks.join_next() => {}
        }
        desk.settle(listed.then_some(&**list), |uid, netns| steward.standing(uid, netns), Instant::now());
    }
    steward.finish(&mut reported).await;
    Ok(())
}

fn listen(path: &Path) -> Result<CniServer, CaptureFailure> {
    CniServer::bind(path).map_err(|source| CaptureFailure::Cni { path: path.to_path_buf(), source })
}
