//! A node: a tree of processes below one that is process 1 of its own PID namespace, with a network, a root file system, a host
//! name and control groups of its own.
//!
//! - [`control`]: from outside: start, end, is it there.
//! - [`groups`]: its control groups (v1).
//! - [`enter`]: the short-lived process that goes into the namespaces and starts process 1 there.
//! - [`mounts`]: process 1 makes its root file system.
//! - [`init`]: process 1 starts containerd, kubelet and kube-proxy, and starts again what ends.

pub mod control;
pub mod enter;
pub mod groups;
pub mod init;
pub mod mounts;
