//! The command line: which half, and what both need.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::proxy::ProxyOptions;
use crate::capture::command::CaptureOptions;
use crate::cni::install::CniInstallOptions;

/// Weft's node agent: captures the traffic of this node's pods and carries it through the mesh.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "weft-node-agent",
    version,
    after_help = "Examples:\n  weft-node-agent capture --node node-a --source dir:/etc/weft/cluster\n  weft-node-agent proxy --node node-a --xds-address 10.0.0.1:15012 --roots /etc/weft/root-cert.pem --token-file /etc/weft/token\n  weft-node-agent run ...   both halves, for bare metal: takes the options of both"
)]
pub struct Arguments {
    /// Which half.
    #[command(subcommand)]
    pub half: Half,
}

/// The two halves, and both together.
#[derive(Debug, Clone, Subcommand)]
pub enum Half {
    /// The privileged half: rules, listeners and dial sockets inside the pods. Meets no network.
    Capture {
        /// Shared options.
        #[command(flatten)]
        common: CommonOptions,
        /// Its own options.
        #[command(flatten)]
        capture: CaptureOptions,
    },
    /// The half that meets the network: tunnels, certificates, policy. Holds no privilege.
    Proxy {
        /// Shared options.
        #[command(flatten)]
        common: CommonOptions,
        /// Its own options.
        #[command(flatten)]
        proxy: Box<ProxyOptions>,
    },
    /// Both halves as two processes, kept running.
    Run {
        /// Shared options.
        #[command(flatten)]
        common: CommonOptions,
        /// Options of the capture half.
        #[command(flatten, next_help_heading = "Capture half")]
        capture: CaptureOptions,
        /// Options of the proxy half.
        #[command(flatten, next_help_heading = "Proxy half")]
        proxy: Box<ProxyOptions>,
        /// Be this half instead of starting both: how `run` starts its children.
        #[arg(long, hide = true)]
        only: Option<OneHalf>,
        /// Say on standard input when ready: how `run` starts the successor of a proxy.
        #[arg(long, hide = true)]
        say_ready: bool,
    },
    /// Puts the CNI plugin into this node's CNI configuration and keeps it there, so that new pods wait for their capture.
    CniInstall {
        /// Its options.
        #[command(flatten)]
        options: CniInstallOptions,
        /// What to log: a level, or `target=level` pairs.
        #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "FILTER")]
        log: String,
        /// How to log.
        #[arg(long, env = "WEFT_LOG_FORMAT", value_enum, default_value = "text")]
        log_format: LogFormat,
    },
}

/// A half by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OneHalf {
    /// The privileged half.
    Capture,
    /// The half that meets the network.
    Proxy,
}

/// What both halves need.
#[derive(Debug, Clone, Args)]
pub struct CommonOptions {
    /// Name of this node, as the control plane knows it.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,
    /// The Unix socket between the two halves.
    #[arg(long, default_value = "/run/weft/handover.sock", value_name = "PATH")]
    pub handover: PathBuf,
    /// What to log: a level, or `target=level` pairs.
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How to log.
    #[arg(long, env = "WEFT_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for weft_runtime::logging::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}
