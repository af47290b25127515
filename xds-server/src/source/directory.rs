//! The directory source: the manifest watch's thread feeds a shared value.

use std::path::Path;
use std::sync::Arc;

use weft_manifest::{Outcome, Watch, WatchError};
use weft_runtime::metrics::Registry;
use weft_runtime::shared::{self, Reader};

use super::shown::Shown;

/// A running source.
#[derive(Debug)]
pub struct DirectorySource {
    /// What is in force; `None` until the directory was read for the first time.
    pub outcomes: Reader<Option<Arc<Outcome>>>,
    /// Ends when it is dropped.
    pub watch: Watch,
}

impl DirectorySource {
    /// Ends the watch; what was read stays.
    pub fn stop(self) {
        self.watch.stop();
    }
}

/// Starts to watch a directory. With `memory`, a directory of its own below the state directory, the last good versions of
/// what is broken outlive a restart.
///
/// # Errors
/// [`WatchError`] when one of them cannot be used.
pub fn start(directory: &Path, memory: Option<&Path>, registry: &Registry) -> Result<DirectorySource, WatchError> {
    let mut shown = Shown::new(registry);
    let (mut writer, outcomes) = shared::channel(None);
    let deliver = move |outcome: Arc<Outcome>| {
        shown.show(&outcome);
        writer.publish(Some(outcome));
    };
    let watch = match memory {
        Some(memory) => Watch::start_remembering(directory, memory, deliver)?,
        None => Watch::start(directory, deliver)?,
    };
    Ok(DirectorySource { outcomes, watch })
}
