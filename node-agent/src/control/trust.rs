//! What follows from a stream to the control plane that stands anew, and from roots that are others than before: nothing of
//! it needs a restart.
//!
//! - A new stream: the CA may be back, too, so nobody sits out a pause.
//! - The CA gave other roots: the control plane's own certificate may come from them, too.
//! - The file of roots was changed, and there is a new stream: the control plane has another CA (its state was lost), so all
//!   certificates are renewed now and not at their half life.

use std::path::PathBuf;

use weft_identity::Store;
use weft_identity::control::LearntRoots;
use weft_runtime::shared::Reader;
use weft_wire::delta::StreamStatus;

/// Runs for as long as the program lives. `files` are those with the control plane's and the CA's roots.
pub(super) async fn keep_trust(
    store: Store,
    learnt: LearntRoots,
    files: Vec<PathBuf>,
    mut stream: Reader<StreamStatus>,
) {
    let mut changes = store.changes();
    let mut streams = stream.load().streams;
    let mut content = read(&files);
    loop {
        if let Some(bundle) = store.bundle() {
            learnt.learn(&bundle);
        }
        tokio::select! {
            () = changes.next() => {}
            anew = stream.wait_until(|status| status.streams != streams) => {
                let Ok(status) = anew else { return };
                streams = status.streams;
                store.retry();
                let now = read(&files);
                if now != content {
                    content = now;
                    tracing::info!("the roots file of the control plane was changed: all certificates are renewed");
                    store.renew_all();
                }
            }
        }
    }
}

/// Some KiB, when a stream stands anew. One that cannot be read now counts as it would with nothing in it: the stream would
/// not stand without it, unless it was replaced just now, and then the next one shows it.
fn read(files: &[PathBuf]) -> Vec<Vec<u8>> {
    files.iter().map(|path| std::fs::read(path).unwrap_or_default()).collect()
}
