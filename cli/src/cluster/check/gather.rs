//! Asks the API server and the programs for all that `weft check` judges.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::timeout;
use weft_kubernetes::rotation::{RootSecret, Rotation};
use weft_kubernetes::{Cluster, ClusterError, ForwardError};

use super::proxy::modes;
use super::seen::{Agent, Asked, Installed, Leader, Node, Plugin, Seen};
use crate::cluster::look::look;
use crate::cluster::manifests;
use crate::cluster::object::text;
use crate::cluster::pods::rows;
use crate::cluster::values::{Values, keeps_plugin, kept};
use crate::programs::ask::{each, found};
use crate::programs::choose::{NAMESPACE, Program, Role};
use crate::programs::many::many;

/// Lines of a container's log that are read: what the CNI plugin's says last is among them.
const LINES: i64 = 50;
/// How long a kubelet may take for that: one that is away never answers.
const LOG: Duration = Duration::from_secs(8);

/// Everything.
///
/// # Errors
/// The API server does not say what is in the cluster at all.
pub(super) async fn gather(cluster: &Cluster) -> anyhow::Result<Seen> {
    let mut noticed = Noticed::default();
    let installed = installed(cluster, &mut noticed).await?;
    let nodes = nodes(cluster, &mut noticed).await?;
    let servers = each(cluster, found(cluster, Role::Server).await?, "config").await;
    let servers = servers.into_iter().map(|(program, config)| (program, noticed.asked(config))).collect();
    let leader = leader(cluster, &mut noticed).await?;
    Ok(Seen {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes: cluster.version().await?,
        installed,
        servers,
        leader,
        rotation: rotation(cluster).await,
        nodes,
        pods: rows(cluster).await?,
        forbidden: noticed.forbidden,
        no_ports: noticed.no_ports,
        now: SystemTime::now(),
    })
}

/// What is noticed on the way.
#[derive(Default)]
struct Noticed {
    /// The DaemonSet, which says how agents run.
    agents: Option<Value>,
    forbidden: Vec<String>,
    no_ports: Option<String>,
}

impl Noticed {
    /// What may be looked at; what may not is noted.
    fn allowed<T>(&mut self, what: &str, answer: Result<T, ClusterError>) -> Result<Option<T>, ClusterError> {
        match answer {
            Err(error) if error.is_forbidden() => {
                self.forbidden.push(what.to_owned());
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// What a program says; that this user may not ask is noted once.
    fn asked<T>(&mut self, answer: anyhow::Result<T>) -> Asked<T> {
        answer.map_err(|error| {
            if let Some(ForwardError::Forbidden { message, .. }) = error.downcast_ref() {
                self.no_ports = Some(message.clone());
            }
            words(error)
        })
    }
}

/// What is installed, against what its own values want.
async fn installed(cluster: &Cluster, noticed: &mut Noticed) -> anyhow::Result<Installed> {
    let base = manifests::base()?;
    let (mut live, mut absent) = (Vec::new(), Vec::new());
    for object in &base {
        match noticed.allowed(&named(object), cluster.read(object).await)? {
            Some(Some(now)) => live.push(now),
            Some(None) => absent.push(named(object)),
            None => {}
        }
    }
    let wanted = manifests::objects(&kept(&live, &Values::chart()?))?;
    absent.retain(|name| wanted.iter().any(|object| named(object) == *name));
    let mut unfinished = Vec::new();
    for now in live.iter().filter(|now| now["kind"] == "Deployment" || now["kind"] == "DaemonSet") {
        let missing = look(cluster, now).await?;
        unfinished.extend(missing.map(|missing| (named(now), missing)));
    }
    noticed.agents = live.into_iter().find(|now| now["kind"] == "DaemonSet");
    Ok(Installed { count: wanted.len(), absent, unfinished })
}

fn named(object: &Value) -> String {
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

async fn leader(cluster: &Cluster, noticed: &mut Noticed) -> anyhow::Result<Leader> {
    let lease = json!({ "kind": "Lease", "metadata": { "namespace": NAMESPACE, "name": "weft-xds-server" } });
    let Some(lease) = noticed.allowed("the Lease of the leader", cluster.read(&lease).await)? else {
        return Ok(Leader::Unknown);
    };
    let holder = || {
        let spec = &lease.as_ref()?["spec"];
        let holder = spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty())?;
        let renewed = humantime::parse_rfc3339(spec["renewTime"].as_str()?).ok()?;
        let age = SystemTime::now().duration_since(renewed).unwrap_or_default();
        Some(Leader::Holds(holder.to_owned(), age.as_secs()))
    };
    Ok(holder().unwrap_or(Leader::Nobody))
}

async fn rotation(cluster: &Cluster) -> Asked<Option<Rotation>> {
    let found = RootSecret::new(cluster.client(), NAMESPACE).look().await;
    found.map(|found| found.map(|(rotation, _)| rotation)).map_err(|error| words(error.into()))
}

async fn nodes(cluster: &Cluster, noticed: &mut Noticed) -> anyhow::Result<Vec<Node>> {
    let mut agents = agents(cluster, noticed).await?;
    let Some(found_nodes) = noticed.allowed("nodes", cluster.list("Node", "").await)? else {
        // As far as agents tell.
        let node = |(name, agent)| Node { name, ready: true, wanted: true, agent: Some(agent), proxy: None };
        return Ok(agents.into_iter().map(node).collect());
    };
    let names: Vec<String> = found_nodes.iter().map(|node| text(&node["metadata"]["name"]).to_owned()).collect();
    let proxies = modes(cluster, &names).await;
    let node = |((node, name), proxy): ((&Value, String), Option<String>)| Node {
        ready: condition(node, "Ready"),
        wanted: noticed.agents.as_ref().is_some_and(|set| is_wanted(set, node)),
        agent: agents.remove(&name),
        name,
        proxy,
    };
    Ok(found_nodes.iter().zip(names).zip(proxies).map(node).collect())
}

/// The agents by node, with what each says.
async fn agents(cluster: &Cluster, noticed: &mut Noticed) -> anyhow::Result<BTreeMap<String, Agent>> {
    let programs = found(cluster, Role::Agent).await?;
    let (configs, certificates, pods, plugins) = tokio::join!(
        each(cluster, programs.clone(), "config"),
        each(cluster, programs.clone(), "certs"),
        each(cluster, programs.clone(), "pods-here"),
        plugins(cluster, &programs, noticed.agents.as_ref().is_none_or(keeps_plugin)),
    );
    let mut agents = BTreeMap::new();
    let answers = configs.into_iter().zip(certificates).zip(pods).zip(plugins);
    for ((((program, config), (_, certificates)), (_, pods)), plugin) in answers {
        let agent = Agent {
            config: noticed.asked(config),
            certificates: noticed.asked(certificates),
            pods: noticed.asked(pods),
            plugin,
            program,
        };
        agents.insert(agent.program.node.clone(), agent);
    }
    Ok(agents)
}

/// The CNI plugin of each agent's node, by the log of the container that keeps it there.
async fn plugins(cluster: &Cluster, agents: &[Program], wanted: bool) -> Vec<Plugin> {
    if !wanted {
        return vec![Plugin::Unwanted; agents.len()];
    }
    many(agents.to_vec(), |agent| {
        let cluster = cluster.clone();
        async move {
            match timeout(LOG, cluster.log(NAMESPACE, &agent.pod, "cni", LINES)).await {
                Ok(Ok(log)) => Plugin::of_log(&log),
                Ok(Err(error)) => Plugin::Unknown(words(error.into())),
                Err(_late) => Plugin::Unknown("the kubelet of its node does not answer".to_owned()),
            }
        }
    })
    .await
}

/// Whether the DaemonSet's node selector takes this node; it tolerates every taint.
fn is_wanted(set: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selector = set["spec"]["template"]["spec"]["nodeSelector"].as_object();
    selector.into_iter().flatten().all(|(key, value)| labels[key] == *value)
}

fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn words(error: anyhow::Error) -> String {
    weft_runtime::failure::words(error.as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_wanted;

    #[test]
    fn a_node_that_the_selector_leaves_out_needs_no_agent() {
        let set = json!({ "spec": { "template": { "spec": { "nodeSelector": { "kubernetes.io/os": "linux" } } } } });
        let node = |system: &str| json!({ "metadata": { "labels": { "kubernetes.io/os": system } } });
        assert!(is_wanted(&set, &node("linux")) && !is_wanted(&set, &node("windows")));
        assert!(is_wanted(&json!({}), &node("windows")));
    }
}
