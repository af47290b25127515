//! HBONE: HTTP/2 CONNECT tunnels over any encrypted stream.
//!
//! This crate knows neither certificates nor policy: a [`pool::Dial`] hands it ready encrypted streams, and the caller
//! decides which [`server::Incoming`] is accepted. The wire is Istio ambient's (`ambient-wire.md` sections 0 to 2), so
//! either end may be a stock ztunnel or Envoy.
//!
//! | module | what |
//! |---|---|
//! | [`connect`] | the request's head: authority, baggage, forwarded, traceparent; the response's reason |
//! | [`tunnel`] | one stream: flow-controlled bytes both ways, half-close, reset |
//! | [`client`], [`server`] | the two ends of one connection |
//! | [`keepalive`] | PING, and when a connection counts as dead |
//! | [`pool`] | which connection carries the next tunnel; who dials, who waits |
//! | [`relay`] | copies between a socket and a tunnel, or between two sockets |
//!
//! **Who drives what.** Nothing here spawns. A client connection comes with a [`client::ClientDriver`] future, a server
//! connection is driven by calling [`server::ServerConnection::accept`] until it returns `None`, and a pool comes with a
//! [`pool::PoolDriver`] whose `run` future owns every dial and every connection of the pool: dropping it cuts them all.
//! All of it works on a single-threaded runtime without `Send`; types are `Send` wherever the caller's are.
//!
//! **HTTP/2 library.** No type of `h2` is visible outside: a framer of our own can take its place behind
//! [`tunnel::Tunnel`], [`client`] and [`server`].

pub mod client;
pub mod connect;
pub mod error;
pub mod keepalive;
mod payload;
pub mod pool;
pub mod relay;
pub mod server;
pub mod settings;
mod status;
pub mod tunnel;

pub use client::{ClientConnection, ClientDriver, OpenError};
pub use connect::{Authority, Baggage, ConnectHead, Forwarded, Refusal, Traceparent};
pub use error::{ConnectionEnd, ResetCode, StreamError};
pub use pool::{Dial, DialFailure, Patience, Pool, PoolCount, PoolDriver, PoolError, PoolSettings};
pub use relay::{Buffers, RelayEnd, RelayOutcome, Side, Traffic, relay_sockets, relay_tunnel, reset_unless_orderly};
pub use server::{Incoming, Malformed, ServerConnection};
pub use settings::ConnectionSettings;
pub use tunnel::Tunnel;
