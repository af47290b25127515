//! A real Kubernetes cluster of several nodes on one machine, without a container engine and without any image registry.
//!
//! ```text
//! parts (Go modules -> kube, coredns, pause)     plan (names, addresses)
//!                    \                           /
//!   network (namespaces, wires) -> control_plane (etcd, API server, ...) -> node (containerd, kubelet, kube-proxy) -> dns
//! ```
//!
//! A node is a process tree in namespaces of its own: ending its process 1 is a power cut, starting it again a boot. Kubernetes is
//! built from its Go modules into one program; container runtime and network plugins are Debian's.

pub mod arguments;
pub mod control_plane;
pub mod critical;
pub mod dns;
pub mod kubectl;
pub mod network;
pub mod node;
pub mod parts;
pub mod pki;
pub mod plan;
pub mod shell;
pub mod started;
pub mod texts;
pub mod up;
pub mod wait;

pub use arguments::run;
