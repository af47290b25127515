//! Where the objects come from. A directory today; the Kubernetes API later feeds the same channel.

mod directory;
#[cfg(test)]
mod tests;

pub use directory::{DirectorySource, findings, start};
