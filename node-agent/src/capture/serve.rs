//! The loop of the capture half: what the source wants, what the pods' tasks report and what proxies say comes together
//! here; the roster and the hub decide, the tasks and sessions do.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

pub use super::settings::{CaptureSettings, STATUS_FILE};
use super::{
    install::{InstallError, Installer},
    placing::Placer,
    status::StatusHandle,
    steward::Steward,
};
use crate::{
    handover::server::{BindError, HandoverServer},
    pods::PodSpec,
};

/// Releases and appearances of proxies are looked at this often; everything else is an event.
const TICK: Duration = Duration::from_millis(500);

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
    let mut steward = Steward::new(settings, installer, status, reports);
    steward.tasks.spawn(server.serve(from_proxies));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    wanted.mark_changed();
    let mut list: Arc<Vec<PodSpec>> = Arc::default();
    let (mut listed, mut placer, mut placed) = (false, Placer::default(), Vec::new());
    loop {
        tokio::select! {
            () = &mut stop => break,
            changed = wanted.changed() => {
                changed.map_err(|_| CaptureFailure::SourceEnded)?;
                list = wanted.borrow_and_update().clone();
                placed = placer.place(&list);
                if !std::mem::replace(&mut listed, true) {
                    steward.expect(&placed);
                }
                steward.follow(&placed);
            }
            Some((uid, report)) = reported.recv() => steward.hear(&uid, report),
            Some(event) = proxies.recv() => steward.proxy(event),
            _ = tick.tick(), if listed => {
                if placer.is_looking(&list) {
                    placed = placer.place(&list);
                }
                steward.follow(&placed);
                steward.show();
            }
            Some(_ended) = steward.tasks.join_next() => {}
        }
    }
    steward.finish(&mut reported).await;
    Ok(())
}
