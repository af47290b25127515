//! Which pods of this node are wanted, from a directory of Kubernetes YAML: the same objects and the same rule of
//! enrolment as the control plane's.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;
use weft_manifest::{Objects, Outcome, Watch, WatchError, objects::Pod};
use weft_model::enrolment::MtlsMode;

use crate::pods::{PodSpec, PodUid};

/// A watched directory. Dropping it ends the watch.
#[derive(Debug)]
pub struct DirectorySource {
    _watch: Watch,
}

impl DirectorySource {
    /// Watches `root` for the pods of `node`; gives the first complete list with the receiver. `memory` is a directory of
    /// its own for the last good versions: a Namespace whose file is broken while this half restarts must not read as
    /// "nobody is enrolled", which would release its pods.
    ///
    /// # Errors
    /// [`WatchError`], also when nothing is delivered.
    pub async fn start(
        root: &Path,
        memory: &Path,
        node: &str,
    ) -> Result<(Self, watch::Receiver<Arc<Vec<PodSpec>>>), WatchError> {
        let (sender, mut wanted) = watch::channel(Arc::<Vec<PodSpec>>::default());
        let node = node.to_owned();
        let deliver = move |outcome: Arc<Outcome>| {
            for finding in &outcome.findings {
                // The control plane shows all of them; here those matter that keep an older version in force.
                if finding.needs_action() {
                    tracing::warn!(%finding, "source");
                } else {
                    tracing::debug!(%finding, "source");
                }
            }
            // Always marked as changed: the first list may be empty, and must be known to be complete.
            let _nobody_left = sender.send(Arc::new(pods(&outcome.objects, &node)));
        };
        let watch = Watch::start_remembering(root, memory, deliver)?;
        // The sender lives in the watch's thread: an error here means that it ended, and shows as an ended source later.
        let _ended = wanted.changed().await;
        wanted.mark_changed();
        Ok((Self { _watch: watch }, wanted))
    }
}

/// The pods of one node as the roster wants them. Pods of the host's network have no namespace of their own and are left
/// out; so are pods that have ended, whose addresses may be another's by now.
#[must_use]
pub fn pods(objects: &Objects, node: &str) -> Vec<PodSpec> {
    let own = objects.pods_of_node(node).filter(|pod| !pod.host_network && !pod.is_finished());
    own.map(|pod| spec(objects, pod)).collect()
}

fn spec(objects: &Objects, pod: &Pod) -> PodSpec {
    PodSpec {
        uid: PodUid::from(pod.uid()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        service_account: pod.service_account.clone(),
        addresses: pod.addresses.clone(),
        netns: pod.netns().map(str::to_owned),
        strict: objects.mtls_mode(pod) == MtlsMode::Strict,
        enrolled: objects.enrolment(pod).is_enrolled(),
        probe_ports: pod.probe_ports.clone(),
    }
}

#[cfg(test)]
mod tests;
