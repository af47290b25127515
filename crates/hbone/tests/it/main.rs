//! Tunnels end to end: over in-memory pipes, over loopback TCP, and against hand-driven peers.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test like the tests themselves")]

mod connection;
mod flow;
mod harness;
mod library;
mod pool;
mod relay;
mod sockets;
