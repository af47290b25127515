//! Texts of the protocol that both ends know.

/// The name that means everything.
pub const WILDCARD: &str = "*";

/// How our server ends `system_version_info` while its answer is not complete: the client must not yet take what it has
/// for everything. Other servers never send it, and other clients never look.
pub const MORE_TO_COME: &str = "/more";

/// How our server begins `system_version_info`: it has read its source, so what it does not have is gone. Other servers
/// never send it, and other clients never look.
pub const SYNCED: &str = "synced/";
