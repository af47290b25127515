//! What the proxy half says of its connections: counters by edge, and one log line each.
//!
//! A worker counts in a table of its own and hands finished connections to a bounded queue; the control thread sums the
//! tables at scrape, makes the lines, and has them written by a thread of their own. So no worker waits for another one, for a scrape or for a slow disk.

mod access_log;
mod collector;
mod edge;
mod record;
mod refusals;
mod security;
#[cfg(test)]
mod tests;
mod worker;

pub use access_log::{AccessLog, LogFormat};
pub use edge::{EdgeKey, Party};
pub use record::{ConnectionRecord, Direction};
pub use refusals::{Refusals, row};
pub use security::Security;
pub use worker::{Lines, Telemetry, WorkerTelemetry};
