//! The load generator: a server for a pod, and clients that measure it.
//!
//! `drive` runs threads of one of the loads (`http`, `closed`, `blocking`, `bulk`) and measures a window in their middle; `held` keeps
//! connections open; `wire` holds the words.

pub mod blocking;
pub mod bulk;
pub mod closed;
pub mod drive;
pub mod held;
pub mod http;
mod seen;
pub mod server;
pub mod wire;

pub use blocking::{exchanges, one_exchange, open};
pub use bulk::bulk;
pub use closed::closed;
pub use drive::{Control, Measured, PATIENCE, Tally, Timing, Work, drive, something_done};
pub use held::{Held, hold};
pub use http::{connections, requests};
pub use server::{ECHO, HTTP, REQUESTS, SINK, Server};
pub use wire::Exchange;
