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

/// Name in the certificate of the control plane, which is reached by its address here.
pub const SERVER_NAME: &str = "weft-xds-server.weft-system.svc";

/// What either half of `weft-node-agent` must know.
#[derive(Clone, Debug)]
pub struct AgentFlags {
    /// Node name.
    pub node: String,
    /// The directory of YAML (capture half).
    pub source: PathBuf,
    /// The socket between the halves.
    pub handover: PathBuf,
    /// User that the proxy half becomes; `None` in a user namespace, where it only loses its capabilities.
    pub proxy_user: Option<u32>,
    /// Holds the node's token (proxy half).
    pub token: PathBuf,
    /// Root certificate of the control plane (proxy half).
    pub root: PathBuf,
}

impl AgentFlags {
    /// Arguments of `weft-node-agent capture`.
    #[must_use]
    pub fn capture(&self) -> Vec<String> {
        let mut words = self.common("capture");
        words.extend(["--source".into(), format!("dir:{}", self.source.display())]);
        if let Some(user) = self.proxy_user {
            words.extend(["--proxy-uid".into(), user.to_string()]);
        }
        words
    }

    /// Arguments of `weft-node-agent proxy`.
    #[must_use]
    pub fn proxy(&self) -> Vec<String> {
        let mut words = self.common("proxy");
        words.extend(["--xds-address".into(), format!("{CONTROL_V4}:{SERVER_PORT}")]);
        words.extend(["--xds-server-name".into(), SERVER_NAME.into()]);
        words.extend(["--roots".into(), self.root.display().to_string()]);
        words.extend(["--token-file".into(), self.token.display().to_string()]);
        if let Some(user) = self.proxy_user {
            words.extend(["--run-as".into(), user.to_string()]);
        }
        words
    }

    /// Where the proxy half says that it is ready.
    #[must_use]
    pub fn health() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], AGENT_HEALTH))
    }

    fn common(&self, half: &str) -> Vec<String> {
        let handover = self.handover.display().to_string();
        [half, "--node", &self.node, "--handover", &handover].map(str::to_owned).into()
    }
}
