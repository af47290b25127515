//! The node agent of Weft as a library, so that tests and the program use the same modules.
//!
//! Two halves, joined by [`handover`]: [`capture`] holds privileges and meets no network; the proxy half meets the
//! network and holds none. `docs/architecture.md` draws both ways through.

pub mod capture;
pub mod capture_half;
pub mod cni;
pub mod config;
pub mod control;
pub mod dispatch;
#[cfg(test)]
mod dispatch_tests;
pub mod environment;
pub mod handover;
pub mod inbound;
pub mod kubelet;
pub mod limits;
pub mod loopback;
pub mod node_info;
pub mod outbound;
pub mod pods;
pub mod ports;
pub mod privileges;
pub mod sandbox;
pub mod supervise;
pub mod telemetry;
pub mod watch;
pub mod worker;
