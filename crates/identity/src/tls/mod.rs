//! TLS of the mesh: the only place that builds rustls configurations, and the two handshakes on any byte stream.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | configurations, and what was agreed |
//! | [`handshake`] | `accept`, `connect`, and how they fail |
//! | [`stream`] | the encrypted stream: large reads and writes, nothing held at rest |
//! | `records` | rustls without I/O |

mod buffers;
pub mod config;
pub mod handshake;
mod records;
pub mod stream;

pub use config::{ClientConfig, ServerConfig, TlsError, client_config, install_default_provider, server_config};
pub(crate) use config::{control_client_config, control_server_config};
pub use handshake::{ClientStream, HandshakeError, ServerStream, accept, connect, peer_identity, reason_of};
pub use records::Session;
pub use stream::TlsStream;
