//! Kubernetes objects, typed: read from YAML where there is no Kubernetes, or as an API server sends them.
//!
//! Line 1 of the layers, beside the wire: home of the YAML parser and of the directory watch. The control plane translates
//! what comes out of here, the capture half learns the pods of its node from it, and `weft lint` prints its findings.
//!
//! ```text
//! directory -> watch (files.rs: whole snapshots) -> store (last good versions) -> Outcome { objects, findings }
//!                          document.rs: split -> objects/*: typed, strict -> check.rs: all of them together
//!                          memory.rs: the last good versions over a restart
//! API server (crate kubernetes) -> live (last good versions) -> Outcome, by the same readers
//! ```

mod check;
mod document;
mod fields;
mod files;
mod finding;
mod live;
mod memory;
pub mod objects;
mod plain;
mod source;
mod store;
mod watch;

pub use check::{Conflicts, check, conflicts, selected_pods};
pub use document::{Document, split};
pub use files::{Files, QUIET, Scan, ScanError, Scanner};
pub use finding::{Finding, Place, Severity};
pub use live::Live;
pub use memory::{Memory, MemoryError};
pub use objects::{Kind, Object, ObjectKey, Objects};
pub use plain::{read_plain, write_plain};
pub use source::{Source, SourceError};
pub use store::{Outcome, Revision, Store};
pub use watch::{RESCAN, Watch, WatchError};
