//! The real programs as child processes: found beside this one, started in their namespaces, killed, restarted, asked.
//!
//! `flags` is the one place that knows their command lines, `binaries` finds them, `daemon` is one running program,
//! `deployment` is a whole mesh (one server, two halves on each node), `http` asks an admin port.

mod binaries;
mod daemon;
mod deployment;
mod flags;
mod http;

pub use binaries::{binary, require_system_program};
pub use daemon::{Daemon, DaemonPlan};
pub use deployment::{Deployment, Extra, Proxied};
pub use flags::{AGENT_ADMIN, AGENT_HEALTH, AgentFlags, SERVER_ADMIN, SERVER_NAME, SERVER_PORT, ServerFlags};
pub use http::{get, get_ok};
