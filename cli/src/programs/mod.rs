//! The programs that run, agents and control plane, and what their admin pages say.
//!
//! ```text
//! options (who is meant) -> choose (which pods those are; pure) -> ask (a port of each, through the API server)
//!                        -> address (or one address: --admin)   -> ask (a connection)      -> http (one question)
//! ```
//!
//! [`many`]: several are asked at the same time. Both ways differ in the connection alone.

pub mod address;
pub mod ask;
pub mod choose;
mod http;
pub mod many;
pub mod options;
