//! The command lines of our programs: the one file to change when a flag changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::netns::CONTROL_V4;

/// Port of the control plane's gRPC.
pub const SERVER_PORT: u16 = 15012;
/// Admin port of the control plane (health, metrics, dump).
pub const SERVER_ADMIN: u16 = 15014;
/// Admin port of an agent, on loopback.
pub const AGENT_ADMIN: u16 = 15000;
/// Health port of an agent.
pub const AGENT_HEALTH: u16 = 15021;

/// What `weft-xds-server` must know.
#[derive(Clone, Debug)]
pub struct ServerFlags {
    /// The directory of YAML.
    pub source: PathBuf,
    /// Holds the CA.
    pub state: PathBuf,
    /// Lines `NODE TOKEN`.
    pub tokens: PathBuf,
}

impl ServerFlags {
    /// Its arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        vec![
            "--source".into(),
            format!("dir:{}", self.source.display()),
            "--state-dir".into(),
            self.state.display().to_string(),
            "--node-tokens".into(),
            self.tokens.display().to_string(),
            "--listen".into(),
            format!("[::]:{SERVER_PORT}"),
            "--admin".into(),
            format!("0.0.0.0:{SERVER_ADMIN}"),
        ]
    }

    /// The root certificate that agents trust the server by, written at its first start.
    #[must_use]
    pub fn root_certificate(state: &Path) -> PathBuf {
        state.join("root-cert.pem")
    }
}

/// What either half of `weft-node-agent` must know.
#[derive(Clone, Debug)]
pub struct AgentFlags {
    /// Node name.
    pub node: String,
    /// The directory of YAML (capture half).
    pub source: PathBuf,
    /// State of the capture half.
    pub state: PathBuf,
    /// The socket between the halves.
    pub handover: PathBuf,
    /// Holds the node's token (proxy half).
    pub token: PathBuf,
    /// Root certificate of the control plane (proxy half).
    pub root: PathBuf,
}

impl AgentFlags {
    /// Arguments of `weft-node-agent capture`.
    #[must_use]
    pub fn capture(&self) -> Vec<String> {
        vec![
            "capture".into(),
            "--node".into(),
            self.node.clone(),
            "--source".into(),
            format!("dir:{}", self.source.display()),
            "--state-dir".into(),
            self.state.display().to_string(),
            "--handover".into(),
            self.handover.display().to_string(),
        ]
    }

    /// Arguments of `weft-node-agent proxy`.
    #[must_use]
    pub fn proxy(&self) -> Vec<String> {
        vec![
            "proxy".into(),
            "--node".into(),
            self.node.clone(),
            "--handover".into(),
            self.handover.display().to_string(),
            "--xds-address".into(),
            format!("https://{CONTROL_V4}:{SERVER_PORT}"),
            "--xds-root".into(),
            self.root.display().to_string(),
            "--token-file".into(),
            self.token.display().to_string(),
        ]
    }

    /// Where the proxy half says that it is ready.
    #[must_use]
    pub fn health() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], AGENT_HEALTH))
    }
}
