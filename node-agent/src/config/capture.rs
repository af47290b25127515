//! Settings of the capture half.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Settings of the capture half.
#[derive(Debug, Clone, Args)]
pub struct CaptureOptions {
    /// Where to learn which pods run here: `dir:PATH` reads Kubernetes YAML, the same as the control plane's.
    #[arg(long, env = "WEFT_SOURCE", value_name = "dir:PATH")]
    pub source: Source,
    /// User that the proxy half runs as; only it (and root) may take the sockets.
    #[arg(long, env = "WEFT_PROXY_UID", value_name = "UID")]
    pub proxy_uid: Option<u32>,
    /// Take the rules away at the end instead of leaving the pods closed until a successor comes.
    #[arg(long)]
    pub release_on_exit: bool,
    /// How long connections older than the enrolment of a permissive pod may go on in plaintext.
    #[arg(long, default_value = "10m", value_parser = humantime_duration, value_name = "DURATION")]
    pub transition_deadline: std::time::Duration,
}

/// Where pods come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of Kubernetes YAML.
    Directory(PathBuf),
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a source; expected dir:PATH, for example dir:/etc/weft/cluster")]
pub struct SourceError(String);

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            _ => Err(SourceError(text.to_owned())),
        }
    }
}

pub(super) fn humantime_duration(text: &str) -> Result<std::time::Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}
