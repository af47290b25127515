//! Says whose the other end of a connection is: the kubelet's, or anybody else's (decision 24).
//!
//! | module | does |
//! |---|---|
//! | [`owner`] | which process is the kubelet, which question has an answer (pure) |
//! | `process` | a process, from /proc |
//! | `lookout` | looks: the kernel's sockets of the node, the kubelet's descriptors |
//! | [`server`] | the socket where proxies ask |

mod lookout;
pub mod owner;
mod process;
pub mod server;
