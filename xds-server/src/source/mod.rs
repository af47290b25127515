//! Where the objects come from: a directory of YAML, or the Kubernetes API. Both feed the same channel, and nothing behind it knows
//! which.

mod directory;
mod shown;
#[cfg(test)]
mod tests;

pub use directory::{DirectorySource, start};
pub use shown::{Shown, findings};
