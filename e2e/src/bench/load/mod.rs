//! The load generator: a server for a pod, and clients that measure it.
//!
//! `drive` runs threads of one of the loads (`closed`, `blocking`) and measures a window in their middle; `held` keeps
//! connections open; `wire` holds the words.

pub mod blocking;
pub mod closed;
pub mod drive;
pub mod held;
pub mod server;
pub mod wire;

pub use blocking::{bulk, churn, exchanges, one_exchange, open};
pub use closed::closed;
pub use drive::{Control, Measured, PATIENCE, Tally, Timing, Work, drive, something_done};
pub use held::{Held, hold};
pub use server::{ECHO, REQUESTS, SINK, Server};
pub use wire::Exchange;
