//! Test equipment of Weft: a laboratory of network namespaces, packet capture, mesh directories, the real programs as
//! child processes, and clients and servers that look closely at what arrives. Used by tests and by `e2e` only.
//!
//! Everything is synchronous std code: a test reads top to bottom, and no runtime of its own hides the product's.

pub mod agents;
pub mod mesh;
pub mod netns;
pub mod process;
pub mod programs;
pub mod stranger;
pub mod traffic;
pub mod wait;
pub mod wire;
