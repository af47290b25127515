//! The node agent of Weft as a library, so that tests and the program use the same modules.
//!
//! Two halves, joined by [`handover`]: [`capture`] holds privileges and meets no network; the proxy half meets the
//! network and holds none. `docs/architecture.md` draws both ways through.
//!
//! | part | modules |
//! |---|---|
//! | both halves | [`config`] (settings), [`handover`] (the socket between them), [`pods`] (which pods are wanted), [`ports`], [`loopback`] |
//! | capture half | [`capture`] (rules and sockets inside the pods), [`capture_half`] (its start) |
//! | proxy half: control thread | [`control`] (control plane, certificates, pages), [`dispatch`] (pods and sockets to the workers) |
//! | proxy half: data workers | [`worker`] (one thread and what its tasks share), [`outbound`], [`inbound`], [`environment`] (what they are given) |
//! | proxy half: around them | [`telemetry`], [`limits`] (descriptors, memory), [`privileges`] and [`sandbox`] (what it gives up), [`node_info`] |
//! | Kubernetes | [`cni`] (the plugin), [`watch`](mod@watch) (pods from the API server), [`kubelet`] (is it a probe?) |
//! | bare metal | [`supervise`] (`weft-node-agent run`) |

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
