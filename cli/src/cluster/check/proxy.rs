//! In which mode kube-proxy sends services on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use weft_kubernetes::Cluster;

use crate::programs::many::many;

/// Its port of metrics, which names the mode; most clusters keep it at 127.0.0.1 of the node.
const PORT: u16 = 10249;
/// An API server that finds nobody there says so at once, where no packet is lost.
const TIME: Duration = Duration::from_secs(3);
const MODES: [&str; 3] = ["iptables", "nftables", "ipvs"];

/// By node, in their order: as kubeadm's ConfigMap says for all, else as each says itself; none where neither can be read.
pub(super) async fn modes(cluster: &Cluster, nodes: &[String]) -> Vec<Option<String>> {
    let map = json!({ "kind": "ConfigMap", "metadata": { "namespace": "kube-system", "name": "kube-proxy" } });
    if let Ok(Some(map)) = cluster.read(&map).await
        && let Some(mode) = of_config(&map)
    {
        return vec![Some(mode.to_owned()); nodes.len()];
    }
    many(nodes.to_vec(), |node| {
        let cluster = cluster.clone();
        async move {
            let said = timeout(TIME, cluster.ask_node(&node, PORT, "proxyMode")).await;
            let mode = said.ok().and_then(Result::ok);
            mode.and_then(|mode| known(mode.trim())).map(str::to_owned)
        }
    })
    .await
}

fn known(word: &str) -> Option<&'static str> {
    MODES.into_iter().find(|mode| *mode == word)
}

/// Out of kubeadm's ConfigMap; an empty mode is iptables on Linux (kube-proxy's own default).
fn of_config(map: &Value) -> Option<&'static str> {
    let text = map["data"]["config.conf"].as_str()?;
    let word = text.lines().find_map(|line| line.strip_prefix("mode:")).unwrap_or_default();
    match word.trim().trim_matches(['"', '\'']) {
        "" => Some("iptables"),
        word => known(word),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::of_config;

    #[rstest]
    #[case("kind: KubeProxyConfiguration\nmode: nftables\n", Some("nftables"))]
    #[case("mode: \"ipvs\"\nipvs:\n  scheduler: rr\n", Some("ipvs"))]
    #[case("mode: \"\"\n", Some("iptables"))]
    #[case("kind: KubeProxyConfiguration\n", Some("iptables"))]
    #[case("mode: kernelspace\n", None)]
    fn the_mode_of_a_configuration(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(of_config(&json!({ "data": { "config.conf": text } })), expected);
        assert_eq!(of_config(&json!({ "data": {} })), None);
    }
}
