//! What a call of the container runtime asks for (CNI specification 1.1.0, and down to 0.3.0), and what is printed for it. Pure.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use thiserror::Error;

use super::talk::{Answer, NewPod, Request, SOCKET};

/// Versions of the specification that hand the result of the plugins before on, which came with 0.3.0.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What the runtime says in the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_ARGS`: `K8S_POD_NAME=web;...`.
    pub arguments: String,
}

/// Why it fails; every message names the next step.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PluginError {
    /// Neither side knows the other's language.
    #[error(
        "weft-cni does not speak CNI version {0:?}: the node's CNI configuration must say one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
    )]
    Version(String),
    /// What came in is no configuration of ours.
    #[error("weft-cni cannot read its configuration: {0}; `weft-node-agent cni-install` writes it")]
    Configuration(String),
    /// It stands first.
    #[error(
        "weft-cni got no result of a plugin before it: it must be the last of the plugins of a CNI configuration, as `weft-node-agent cni-install` puts it"
    )]
    NotChained,
    /// Something is missing in the call.
    #[error("weft-cni: the container runtime did not say {0}; Weft needs containerd 1.6, CRI-O 1.20, or later")]
    Incomplete(&'static str),
    /// No such command.
    #[error("weft-cni does not know CNI_COMMAND {0:?}; it is called by the container runtime")]
    Command(String),
    /// The agent is away or stuck: nothing starts.
    #[error(
        "pod is not started before Weft's agent on this node can capture it: {0}; look at the pod weft-node-agent of this node (kubectl -n weft-system get pods -o wide)"
    )]
    Agent(String),
    /// It answers, and the pod is not captured.
    #[error("pod is not started before it is captured by Weft: {0}")]
    NotCaptured(String),
}

impl PluginError {
    /// CNI's error code: below 100 those of the specification ("Error").
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Incomplete(_) | Self::Command(_) => 4,
            Self::Configuration(_) => 6,
            Self::NotChained => 7,
            Self::Agent(_) | Self::NotCaptured(_) => 11,
        }
    }

    /// What is printed.
    #[must_use]
    pub fn to_json(&self, version: &str) -> String {
        json!({ "cniVersion": version, "code": self.code(), "msg": self.to_string() }).to_string()
    }
}

/// Our entry in the configuration, as the runtime hands it in.
#[derive(Debug, Deserialize)]
pub struct Configuration {
    #[serde(rename = "cniVersion", default)]
    version: String,
    #[serde(default = "socket")]
    socket: PathBuf,
    #[serde(rename = "exemptNamespaces", default)]
    exempt: Vec<String>,
    #[serde(rename = "prevResult", default)]
    previous: Option<Box<RawValue>>,
}

fn socket() -> PathBuf {
    SOCKET.into()
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Print this, which may be nothing.
    Print(String),
    /// Ask at the socket; when the pod may start, print this.
    Ask(PathBuf, Request, String),
    /// Tell it at the socket, whether somebody listens or not.
    Tell(PathBuf, Request),
}

/// The version to answer in: that of the question, if it can be read.
#[must_use]
pub fn version_of(input: &str) -> String {
    let version = serde_json::from_str::<Configuration>(input).map(|configuration| configuration.version);
    version.ok().filter(|version| VERSIONS.contains(&&**version)).unwrap_or_else(|| "1.0.0".to_owned())
}

/// Decides.
///
/// # Errors
/// [`PluginError`].
pub fn step(call: &Call, input: &str) -> Result<Step, PluginError> {
    match call.command.as_str() {
        "VERSION" => Ok(Step::Print(versions(input))),
        // A node whose STATUS fails takes no new pods, and so none of the agent's that it waits for.
        "CHECK" | "STATUS" | "GC" => Ok(Step::Print(String::new())),
        "ADD" => add(call, input),
        "DEL" => {
            // Nothing of the pod may be kept by an error here.
            let socket = serde_json::from_str::<Configuration>(input).map_or_else(|_| socket(), |found| found.socket);
            Ok(Step::Tell(socket, Request::Delete { container: call.container.clone() }))
        }
        other => Err(PluginError::Command(other.to_owned())),
    }
}

fn versions(input: &str) -> String {
    json!({ "cniVersion": version_of(input), "supportedVersions": VERSIONS }).to_string()
}

fn add(call: &Call, input: &str) -> Result<Step, PluginError> {
    let configuration: Configuration =
        serde_json::from_str(input).map_err(|error| PluginError::Configuration(error.to_string()))?;
    if !VERSIONS.contains(&&*configuration.version) {
        return Err(PluginError::Version(configuration.version));
    }
    let previous = configuration.previous.ok_or(PluginError::NotChained)?;
    let result = previous.get().to_owned();
    let argument = |name: &str| {
        let pairs = call.arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value.to_owned()).next()
    };
    let Some(namespace) = argument("K8S_POD_NAMESPACE") else {
        // A container that is no pod, such as podman's on the same node.
        return Ok(Step::Print(result));
    };
    if configuration.exempt.contains(&namespace) {
        return Ok(Step::Print(result));
    }
    let named = |text: &String| !text.is_empty();
    let pod = NewPod {
        namespace,
        name: argument("K8S_POD_NAME").ok_or(PluginError::Incomplete("K8S_POD_NAME"))?,
        uid: argument("K8S_POD_UID").ok_or(PluginError::Incomplete("K8S_POD_UID"))?,
        container: Some(call.container.clone()).filter(named).ok_or(PluginError::Incomplete("CNI_CONTAINERID"))?,
        netns: Some(call.netns.clone()).filter(named).ok_or(PluginError::Incomplete("CNI_NETNS"))?,
        addresses: addresses(&result)?,
    };
    Ok(Step::Ask(configuration.socket, Request::Add(pod), result))
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize, Serialize)]
struct Ip {
    address: String,
}

/// What the plugins before gave the pod: `10.244.1.5/24`.
fn addresses(result: &str) -> Result<Vec<IpAddr>, PluginError> {
    let bad = |what: String| PluginError::Configuration(format!("prevResult: {what}"));
    let outcome: Outcome = serde_json::from_str(result).map_err(|error| bad(error.to_string()))?;
    let address = |ip: &Ip| ip.address.split('/').next().and_then(|text| text.parse().ok());
    outcome.ips.iter().map(|ip| address(ip).ok_or_else(|| bad(format!("{:?} is no address", ip.address)))).collect()
}

/// What an answer means for the runtime.
///
/// # Errors
/// The pod must not start yet.
pub fn judge(answer: Answer) -> Result<(), PluginError> {
    match answer {
        Answer::Captured | Answer::NotSelected => Ok(()),
        Answer::Failed { message } => Err(PluginError::NotCaptured(message)),
        Answer::Forgotten => Err(PluginError::NotCaptured("the answer of another question".to_owned())),
    }
}

#[cfg(test)]
mod tests;
