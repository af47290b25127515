//! What the kernel lets this process have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to the hard one. The soft one is 1,024 nearly everywhere. In the capture half each
/// captured pod holds six descriptors for every worker, and as many are under way to a proxy; in the proxy half each
/// connection holds one or two, and a record of the handover whose descriptors do not fit ends the conversation.
pub fn raise_open_files() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
