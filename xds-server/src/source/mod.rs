//! Where the objects come from. A directory today; the Kubernetes API later feeds the same channel.

mod directory;

pub use directory::{DirectorySource, findings, start};
