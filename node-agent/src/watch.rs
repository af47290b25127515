//! The third program of a node, on Kubernetes only: watches the API server for the namespaces of the cluster and the pods of this node,
//! and writes what counts of them into a file that the capture half reads as its `--source dir:`.
//!
//! It also says on the pods themselves what is wrong with them: Events, from the file in which the capture half shows its state.
//!
//! So the privileged half stays what it is: no TLS, no HTTP, nothing of the network; and a restart of either program, or an API
//! server that is away, changes nothing for pods that are captured (the file stays).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};
use thiserror::Error;
use weft_kubernetes::{ClientError, Events, Feed, Scope, connect};
use weft_manifest::objects::{NETNS_ANNOTATION, Namespace, Phase, Pod};
use weft_manifest::{Objects, Outcome};
use weft_runtime::logging;
use weft_runtime::signals::Signals;

use crate::config::LogFormat;

mod announce;
mod trouble;

/// The file, in the directory that is given.
pub const FILE: &str = "pods.json";

/// Tells the capture half of this node about its pods, from the Kubernetes API.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "weft-node-agent-watch",
    version,
    after_help = "Example:\n  weft-node-agent-watch --node node-a --to /run/weft/pods\n  weft-node-agent capture --node node-a --source dir:/run/weft/pods"
)]
pub struct WatchArguments {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,
    /// The directory that the capture half reads; made if it is missing.
    #[arg(long, default_value = "/run/weft/pods", value_name = "PATH")]
    pub to: PathBuf,
    /// The status file of the capture half. Pods that it cannot capture get Events; without it there are none.
    #[arg(long, value_name = "FILE")]
    pub capture_status: Option<PathBuf>,
    /// The kubeconfig, if not the usual ways (the pod's own account, $KUBECONFIG).
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// What to log: a level, or `target=level` pairs.
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How to log.
    #[arg(long, env = "WEFT_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Why it ended with an error.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The log filter cannot be read.
    #[error(transparent)]
    Logging(#[from] logging::Error),
    /// No way to the API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The directory or the runtime.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The watches ended, which they never should.
    #[error("the watches ended")]
    Ended,
}

/// Runs until a signal.
///
/// # Errors
/// [`WatchError`].
pub fn run(arguments: &WatchArguments) -> Result<(), WatchError> {
    logging::init(&arguments.log, arguments.log_format.into())?;
    weft_identity::tls::install_default_provider();
    let failed = |what: &str| {
        let what = what.to_owned();
        move |cause| WatchError::Io { what, cause }
    };
    fs::create_dir_all(&arguments.to).map_err(failed(&arguments.to.display().to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("runtime"))?;
    runtime.block_on(async {
        let client = connect(arguments.kubeconfig.as_deref()).await?;
        let mut signals = Signals::new().map_err(failed("signals"))?;
        let feed = Feed::start(&client, &Scope::Node(arguments.node.clone()), |_| ());
        let announce = async {
            match &arguments.capture_status {
                Some(path) => {
                    let events = Events::new(client.clone(), "weft-node-agent", &arguments.node);
                    announce::announce(events, path).await;
                }
                None => std::future::pending().await,
            }
        };
        tracing::info!(node = arguments.node, to = %arguments.to.display(), "watching");
        tokio::select! {
            signal = signals.next() => {
                tracing::info!(%signal, "ending; the capture half keeps what it has");
                Ok(())
            }
            outcome = follow(arguments, feed) => outcome,
            () = announce => Err(WatchError::Ended),
        }
    })
}

async fn follow(arguments: &WatchArguments, mut feed: Feed) -> Result<(), WatchError> {
    let mut outcome = feed.outcomes.wait_until(Option::is_some).await.map_err(|_| WatchError::Ended)?;
    loop {
        if let Some(outcome) = outcome.as_ref() {
            tell(arguments, outcome)?;
        }
        feed.outcomes.changed().await.map_err(|_| WatchError::Ended)?;
        outcome = feed.outcomes.load();
    }
}

/// Writes the file if it says something new. The control plane shows findings; here those matter that keep an older version in force.
fn tell(arguments: &WatchArguments, outcome: &Arc<Outcome>) -> Result<(), WatchError> {
    for finding in outcome.findings.iter().filter(|finding| finding.needs_action()) {
        tracing::debug!(%finding, "source");
    }
    let text = text(&outcome.objects, &arguments.node);
    let path = arguments.to.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    replace(&path, &text).map_err(|cause| WatchError::Io { what: path.display().to_string(), cause })
}

/// Beside it, then into its place: whoever reads finds the old or the new. The ending keeps the reader from taking the new one early.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(beside, path)
}

/// A List with what the capture half reads, and nothing else: no fields of newer versions of Kubernetes, no secrets in environments.
fn text(objects: &Objects, node: &str) -> String {
    let namespaces = objects.namespaces.values().map(|namespace| of_namespace(namespace));
    let pods = objects.pods_of_node(node).map(|pod| of_pod(pod));
    let items: Vec<Value> = namespaces.chain(pods).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    format!("{list:#}\n")
}

fn of_namespace(namespace: &Namespace) -> Value {
    let metadata = &namespace.metadata;
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": metadata.name, "labels": metadata.labels } })
}

fn of_pod(pod: &Pod) -> Value {
    let metadata = &pod.metadata;
    let mut about = json!({ "name": metadata.name, "namespace": metadata.namespace, "labels": metadata.labels });
    if let Some(uid) = &metadata.uid {
        about["uid"] = json!(uid);
    }
    if let Some(netns) = pod.netns() {
        about["annotations"] = json!({ NETNS_ANNOTATION: netns });
    }
    let phase = match pod.phase {
        Phase::Unknown => "Unknown",
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    };
    // Of its containers, the ports that the kubelet probes: one each, whatever the kind of the probe.
    let probe =
        |port: &u16| json!({ "name": format!("probe-{port}"), "livenessProbe": { "tcpSocket": { "port": port } } });
    let probed: Vec<Value> = pod.probe_ports.iter().map(probe).collect();
    let addresses: Vec<Value> = pod.addresses.iter().map(|address| json!({ "ip": address })).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": about,
        "spec": { "nodeName": pod.node, "serviceAccountName": pod.service_account, "hostNetwork": pod.host_network, "containers": probed },
        "status": { "phase": phase, "podIPs": addresses },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use weft_manifest::{Files, Kind, Live, Store};

    use super::text;
    use crate::capture::source::pods;

    #[test]
    fn the_capture_half_reads_what_was_watched() {
        let mut live = Live::default();
        live.put(Kind::Namespace, &json!({ "metadata": { "name": "shop", "labels": { "weft.dev/mesh": "enabled", "weft.dev/mtls": "strict" } } }));
        let pod = |name: &str, node: &str| {
            json!({
                "metadata": { "name": name, "namespace": "shop", "uid": name, "labels": { "app": name }, "annotations": { "secret": "x" } },
                "spec": { "nodeName": node, "serviceAccountName": "web", "newField": 1, "containers": [
                    { "name": "c", "env": [{ "value": "secret" }], "readinessProbe": { "httpGet": { "path": "/secret", "port": 8080 } } },
                ] },
                "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] },
            })
        };
        live.put(Kind::Pod, &pod("here", "node1"));
        live.put(Kind::Pod, &pod("there", "node2"));
        let watched = live.outcome();
        let text = text(&watched.objects, "node1");
        assert!(!text.contains("secret") && !text.contains("there"), "{text}");

        let contents = BTreeMap::from([("pods.json".into(), Ok(text.into_bytes().into()))]);
        let read = Store::default().apply(&Files { contents, ..Files::default() });
        assert!(!read.findings.iter().any(weft_manifest::Finding::needs_action), "{:?}", read.findings);
        assert_eq!(pods(&read.objects, "node1"), pods(&watched.objects, "node1"));
        let pod = &pods(&read.objects, "node1")[0];
        assert!(pod.enrolled && pod.strict);
        assert_eq!(pod.probe_ports, [8080].into());
    }
}
