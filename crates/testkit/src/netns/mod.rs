//! A cluster's network on one machine: nodes and pods as network namespaces, no root needed.
//!
//! ```text
//!   pod 10.244.1.2 --veth-- node1 --veth-- [ wire: bridge ] --veth-- node2 --veth-- pod 10.244.2.2
//!                                                 |
//!                                              control 172.31.0.100 (xds-server)
//! ```
//! `enter` brings the program into private namespaces, `lab` builds the picture, `services` is the kube-proxy of
//! un-meshed clients, `address` says who gets which address, `namespace` runs things inside one namespace.

mod address;
mod enter;
mod lab;
mod namespace;
mod pod;
mod services;
mod shell;

pub use address::{CONTROL_V4, CONTROL_V6, cluster_ip, node_address, pod_address};
pub use enter::{Door, Impossible, Inside, enter_program, enter_test, outer_pid, way_in};
pub use lab::{Lab, LabBuilder, Node};
pub use namespace::{Namespace, in_netns, spawn_in_netns};
pub use pod::Pod;
pub use services::ClusterService;
pub use shell::{run, run_with_input};
