//! Tells the control plane which pods accept tunnels here. Level-triggered: every report is the whole list, sent when it
//! changes and whenever a stream stands anew, so a lost one or a restarted server costs nothing.

use std::sync::Arc;
use std::time::Duration;

use weft_runtime::backoff::{Backoff, Settings};
use weft_runtime::shared::Reader;
use weft_wire::delta::StreamStatus;
use weft_wire::report::{Report, Reported, Reporter};

use crate::node_info::NodeInfo;
use crate::worker::served::Served;

/// Pauses after a report that did not arrive. Until it does, new pods are spoken to in plaintext (permissive) or not at
/// all (strict), so the first ones are short.
const PAUSE: Settings =
    Settings { initial: Duration::from_millis(100), cap: Duration::from_secs(5), factor: 2.0, jitter: 0.3 };

/// Reports for as long as the program lives.
pub(super) async fn report(
    reporter: Reporter,
    node: Arc<NodeInfo>,
    mut served: Reader<Served>,
    mut stream: Reader<StreamStatus>,
) {
    let mut backoff = Backoff::new(PAUSE);
    // A list that is not complete would make every peer speak plaintext to pods that were captured all the time: seen
    // when this half was restarted.
    if served.wait_until(Served::is_complete).await.is_err() {
        return;
    }
    loop {
        // A newer proxy tells by now, and knows better.
        if served.wait_until(|served| !served.is_retired()).await.is_err() {
            return;
        }
        let streams = stream.load().streams;
        let report = report_of(&node, &served.load());
        match reporter.report(&report).await {
            Ok(Reported::Accepted { refused }) => {
                backoff.reset();
                for (uid, why) in refused {
                    tracing::warn!(%uid, why, "the control plane does not believe that this pod runs here");
                }
                tokio::select! {
                    changed = served.changed() => if changed.is_err() { return },
                    anew = stream.wait_until(|status| status.streams != streams) => {
                        // Not only when it was answered: a server without its state waits for reports before it does.
                        if anew.is_err() { return }
                    }
                }
            }
            Ok(Reported::Unsupported) => {
                tracing::info!("this control plane takes no reports; it must learn of captured pods by itself");
                if stream.wait_until(|status| status.streams != streams && status.connected).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let delay = backoff.next_delay(&mut rand::rng());
                tracing::warn!(%error, retry_in = ?delay, "report of captured pods did not arrive");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Pods that leave the mesh still accept tunnels of peers that have not heard of it, but are not offered any more.
fn report_of(node: &NodeInfo, served: &Served) -> Report {
    let staying = served.pods().filter(|pod| !pod.leaving);
    let mut captured: Vec<_> = staying.map(|pod| node.workload_uid(&pod.info)).collect();
    captured.sort();
    Report { node: node.name.to_string(), captured, agent_version: env!("CARGO_PKG_VERSION").to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::LocalSet;
    use weft_wire::connect::{Connector, Credentials};
    use weft_wire::delta::{DeltaStream, NodeIdentity, StreamSettings};

    use super::*;
    use crate::dispatch::nobody_served;

    /// After a restart the capture half names its pods one by one. A report before the last one takes the others out of
    /// the mesh, and a stock ztunnel then speaks plaintext to them (seen; a peer of ours would do the same).
    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_before_all_pods_were_named() {
        let attempts = Arc::new(AtomicUsize::new(0));
        let dials = attempts.clone();
        let connector = Connector::new("http://server".parse().unwrap(), move || {
            dials.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<tokio::io::DuplexStream, _>(io::Error::from(io::ErrorKind::ConnectionRefused)))
        });
        let credentials = Credentials { token_file: None, cluster: String::new(), headers: Vec::new() };
        let node = NodeInfo { name: "a".into(), network: "".into(), cluster: "c".into(), trust_domain: "t".into() };
        let (mut writer, served) = nobody_served();
        let identity = NodeIdentity { id: "ztunnel~".to_owned(), metadata: BTreeMap::new() };
        let settings = StreamSettings::everything(identity, credentials.clone());
        let (_stream, status) = DeltaStream::new(connector.clone(), settings);
        let task = report(Reporter::new(connector, credentials), Arc::new(node), served, status);
        let scene = async {
            tokio::task::spawn_local(task);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(attempts.load(Ordering::Relaxed), 0);
            writer.update(Served::completed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(attempts.load(Ordering::Relaxed) > 0);
        };
        LocalSet::new().run_until(scene).await;
    }
}
