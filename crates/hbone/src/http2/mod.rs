//! HTTP/2 as tunnels need it (RFC 9113), without I/O: bytes in, states and bytes out.
//!
//! | module | what |
//! |---|---|
//! | `frame`, `hpack` | the wire forms, both ways |
//! | `walker` | received bytes cut into frames, in place |
//! | `flow`, `streams`, `queue` | windows; the records of streams; what waits in them to be passed on |
//! | `output`, `lent` | what waits for the transport; buffers borrowed while they are used |
//! | `limits`, [`Violation`] | what a peer may do, and with which word its connection ends |
//! | [`Connection`] | all of it together, for either end |
//!
//! No clock, no socket, no task: a [`Connection`] is moved by [`Connection::receive`] and emptied by [`Connection::output`], and wakes
//! whoever asked for something through the waker that was given. So a test, a fuzzer or a simulation can hold both ends in its hands:
//!
//! ```
//! use weft_hbone::ConnectionSettings;
//! use weft_hbone::http2::{Connection, Role};
//!
//! let settings = ConnectionSettings::default();
//! let (mut client, mut server) = (Connection::new(Role::Client, &settings), Connection::new(Role::Server, &settings));
//! let hello = client.output().to_vec();
//! client.sent(hello.len());
//! server.receive(&hello)?; // any bytes at all, cut anywhere: what a peer must not do is an Err(Violation)
//! assert!(!server.output().is_empty());
//! # Ok::<(), weft_hbone::http2::Violation>(())
//! ```

pub mod connection;
mod flow;
pub mod frame;
pub mod hpack;
mod lent;
mod limits;
mod output;
mod queue;
mod streams;
mod violation;
mod walker;

pub use connection::room::BACKLOG_LIMIT;
pub use connection::stream::Arrived;
pub use connection::{Connection, Role};
pub use streams::Key;
pub use violation::Violation;
