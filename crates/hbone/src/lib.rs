//! HBONE: HTTP/2 CONNECT tunnels over any encrypted stream.
//!
//! This crate knows neither certificates nor policy: a [`pool::Dial`] hands it ready encrypted streams, and the caller
//! decides which [`server::Incoming`] is accepted. The wire is Istio ambient's (`docs/hbone.md`), so
//! either end may be a stock ztunnel or Envoy.
//!
//! | module | what |
//! |---|---|
//! | [`connect`] | the request's head: authority, baggage, forwarded, traceparent; the response's reason |
//! | [`tunnel`] | one stream: flow-controlled bytes both ways, half-close, reset |
//! | [`client`], [`server`] | the two ends of one connection; `driver` moves the bytes of either |
//! | [`http2`] | the protocol itself, without I/O |
//! | `keepalive` | PING, and when a connection counts as dead |
//! | [`pool`] | which connection carries the next tunnel; who dials, who waits |
//! | [`relay`] | copies between a socket and a tunnel, or between two sockets |
//!
//! **Who drives what.** Nothing here spawns. A client connection comes with a [`client::ClientDriver`] future, a server
//! connection is driven by calling [`server::ServerConnection::accept`] until it returns `None`, and a pool comes with a
//! [`pool::PoolDriver`] whose `run` future owns every dial and every connection of the pool: dropping it cuts them all.
//! Everything of a connection lives on one thread and is shared without locks (`Rc`), so none of it is `Send`: spawn on a `LocalSet`, or
//! on a worker's own single-threaded runtime.
//!
//! **HTTP/2 library.** None: the framer is our own, since a tunnel needs little of HTTP/2, all the time, for thousands of streams
//! (`docs/decisions/0017-own-framer.md`). h2 is the far end that the tests hold it against.

pub mod client;
pub mod connect;
mod driver;
pub mod error;
mod handle;
pub mod http2;
mod keepalive;
pub mod pool;
pub mod relay;
pub mod server;
pub mod settings;
pub mod tunnel;

pub use client::{ClientConnection, ClientDriver, OpenError};
pub use connect::{Authority, Baggage, ConnectHead, Forwarded, Refusal, Traceparent};
pub use error::{ConnectionEnd, ResetCode, StreamError};
pub use pool::{Dial, DialFailure, Patience, Pool, PoolCount, PoolDriver, PoolError, PoolSettings};
pub use relay::{Buffers, RelayEnd, RelayOutcome, Side, Traffic, relay_sockets, relay_tunnel, reset_unless_orderly};
pub use server::{Incoming, Malformed, ServerConnection};
pub use settings::ConnectionSettings;
pub use tunnel::Tunnel;
