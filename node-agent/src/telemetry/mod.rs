//! What the proxy half says of its connections: counters by edge, and one log line each.
//!
//! A worker counts in a table of its own and puts finished connections into a bounded queue; the control thread sums the
//! tables at scrape, makes the lines some at a time, and has them written by a thread of their own. So no worker waits for
//! another one, for a scrape or for a slow disk, and a connection that ends wakes nobody.
//!
//! | file | does |
//! |---|---|
//! | `record`, `security` | one connection as it is filled in; how it is protected |
//! | `edge`, `worker`, `collector` | counters by who-to-whom; of one worker; as Prometheus sees their sum |
//! | `queue`, `line`, `access_log`, `refusals` | ended connections on their way to the log; a line; its writer; the last refusals |

mod access_log;
mod collector;
mod edge;
mod line;
mod queue;
mod record;
mod refusals;
mod security;
#[cfg(test)]
mod tests;
mod worker;

pub use access_log::{AccessLog, LogFormat};
pub use edge::{Edge, EdgeKey, Party};
pub use queue::Lines;
pub use record::{ConnectionRecord, Direction, HboneTarget, Probe};
pub use refusals::{Refusals, row};
pub use security::Security;
pub use worker::{Telemetry, WorkerTelemetry};
