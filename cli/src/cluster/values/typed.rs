//! The values with their types: what can be wrong is said by the field, before anything is asked of a cluster.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weft_manifest::read_plain;

use super::tree::{lay_over, without_null};

/// What the chart says, and what it says it with.
const CHART: &str = include_str!("../../../../manifests/helm/values.yaml");

/// Containers whose resources can be set, by part.
const SERVER: [&str; 1] = ["xds-server"];
const AGENT: [&str; 4] = ["watch", "capture", "proxy", "cni"];

/// What can be set; `manifests/helm/values.yaml` says what each is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Values {
    /// Registry and path of the images.
    pub images: String,
    /// Their tag; empty: this program's version.
    pub tag: String,
    /// When a node asks the registry.
    pub pull_policy: PullPolicy,
    /// References to Secrets in weft-system.
    pub pull_secrets: Vec<Map<String, Value>>,
    /// Whether pods take plaintext where nothing nearer says it.
    pub mtls: Mtls,
    /// First part of all identities.
    pub trust_domain: String,
    /// DNS domain.
    pub cluster_domain: String,
    /// First part of the uids of the cluster's pods.
    pub cluster: String,
    /// Empty is the default network.
    pub network: String,
    /// The CNI plugin.
    pub cni: Cni,
    /// The control plane.
    pub xds_server: Server,
    /// The agents.
    pub node_agent: Part,
    /// For Helm's hook alone; `weft uninstall --unenroll` is the same.
    pub unenroll: bool,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// By the tag: `latest` always, others if they are not there.
    #[default]
    #[serde(rename = "")]
    AsKubernetes,
    /// Once.
    IfNotPresent,
    /// At each start.
    Always,
    /// The node has them.
    Never,
}

/// What pods of the mesh take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    /// Plaintext, too.
    Permissive,
    /// Only what comes through the mesh.
    Strict,
}

/// The CNI plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cni {
    /// Whether new pods wait for their capture.
    pub enabled: bool,
    /// The nodes' directory of CNI configurations.
    pub configurations: String,
    /// The nodes' directory of CNI programs.
    pub programs: String,
}

/// The Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// How many.
    pub replicas: u32,
    /// In place of what `manifests/base` says, by container.
    pub resources: BTreeMap<String, Map<String, Value>>,
    /// Beside that of `manifests/base`.
    pub node_selector: BTreeMap<String, String>,
    /// In place of those of `manifests/base`.
    pub tolerations: Vec<Map<String, Value>>,
}

/// The DaemonSet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Part {
    /// In place of what `manifests/base` says, by container.
    pub resources: BTreeMap<String, Map<String, Value>>,
    /// Beside that of `manifests/base`.
    pub node_selector: BTreeMap<String, String>,
    /// In place of those of `manifests/base`.
    pub tolerations: Vec<Map<String, Value>>,
}

impl Server {
    /// What it has as the agents have it.
    #[must_use]
    pub fn part(&self) -> Part {
        let Self { resources, node_selector, tolerations, replicas: _ } = self.clone();
        Part { resources, node_selector, tolerations }
    }
}

impl Values {
    /// Those of the chart.
    ///
    /// # Errors
    /// A file of ours is broken.
    pub fn chart() -> anyhow::Result<Self> {
        Self::of(chart()?)
    }

    /// These with others laid over them; null is what the chart says.
    ///
    /// # Errors
    /// A value that is none of these, or cannot be: names it, and says what was expected.
    pub fn with(&self, given: Value) -> anyhow::Result<Self> {
        let mut tree = serde_json::to_value(self)?;
        lay_over(&mut tree, given);
        without_null(&mut tree);
        let mut whole = chart()?;
        lay_over(&mut whole, tree);
        Self::of(whole)
    }

    /// The images' tag.
    #[must_use]
    pub fn tag(&self) -> &str {
        if self.tag.is_empty() { env!("CARGO_PKG_VERSION") } else { &self.tag }
    }

    /// Those that programs have from their environment, by its variables.
    pub(crate) fn settings(&self) -> [(&'static str, &String); 4] {
        [
            ("TRUST_DOMAIN", &self.trust_domain),
            ("CLUSTER_DOMAIN", &self.cluster_domain),
            ("CLUSTER_ID", &self.cluster),
            ("NETWORK", &self.network),
        ]
    }

    /// The same, to be set.
    pub(super) fn settings_mut(&mut self) -> [(&'static str, &mut String); 4] {
        [
            ("TRUST_DOMAIN", &mut self.trust_domain),
            ("CLUSTER_DOMAIN", &mut self.cluster_domain),
            ("CLUSTER_ID", &mut self.cluster),
            ("NETWORK", &mut self.network),
        ]
    }

    fn of(tree: Value) -> anyhow::Result<Self> {
        let values: Self = serde_path_to_error::deserialize(tree)
            .map_err(|error| anyhow::anyhow!("value {}: {}", error.path(), error.inner()))?;
        values.check()?;
        Ok(values)
    }

    fn check(&self) -> anyhow::Result<()> {
        let names = [
            ("images", &self.images),
            ("trustDomain", &self.trust_domain),
            ("clusterDomain", &self.cluster_domain),
            ("cluster", &self.cluster),
        ];
        if let Some((name, _)) = names.into_iter().find(|(_, text)| text.is_empty()) {
            bail!("value {name}: is empty; expected a name");
        }
        let paths = [("cni.configurations", &self.cni.configurations), ("cni.programs", &self.cni.programs)];
        if let Some((name, path)) = paths.into_iter().find(|(_, path)| !path.starts_with('/')) {
            bail!("value {name}: is {path:?}; expected a directory of the nodes, from / on");
        }
        if self.xds_server.replicas == 0 {
            bail!("value xdsServer.replicas: is 0; expected 1 or more");
        }
        containers("xdsServer", &self.xds_server.resources, &SERVER)?;
        containers("nodeAgent", &self.node_agent.resources, &AGENT)?;
        if self.unenroll {
            bail!("value unenroll: is for `helm uninstall`; `weft uninstall --unenroll` does the same");
        }
        Ok(())
    }
}

fn chart() -> anyhow::Result<Value> {
    read_plain(CHART).map_err(anyhow::Error::msg).context("manifests/helm/values.yaml")
}

fn containers(part: &str, resources: &BTreeMap<String, Map<String, Value>>, known: &[&str]) -> anyhow::Result<()> {
    match resources.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => bail!("value {part}.resources.{name}: no such container; expected {}", known.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Mtls, Values};

    #[test]
    fn what_is_given_is_laid_over_and_null_is_the_charts() {
        let chart = Values::chart().unwrap();
        let set = chart.with(json!({ "mtls": "strict", "nodeAgent": { "nodeSelector": { "mesh": "on" } } })).unwrap();
        assert_eq!((set.mtls, chart.mtls), (Mtls::Strict, Mtls::Permissive));
        assert_eq!(set.node_agent.node_selector["mesh"], "on");
        let back = set.with(json!({ "mtls": null, "nodeAgent": { "nodeSelector": { "mesh": null } } })).unwrap();
        assert_eq!(back, chart);
    }

    #[rstest]
    #[case(json!({ "mtl": "strict" }), "mtl", "unknown field")]
    #[case(json!({ "mtls": "Strict" }), "mtls", "expected `permissive` or `strict`")]
    #[case(json!({ "cni": { "program": "/a" } }), "cni.program", "expected one of `enabled`")]
    #[case(json!({ "cni": { "programs": "opt" } }), "cni.programs", "from / on")]
    #[case(json!({ "cni": { "enabled": "no" } }), "cni.enabled", "expected a boolean")]
    #[case(json!({ "xdsServer": { "replicas": 0 } }), "xdsServer.replicas", "1 or more")]
    #[case(json!({ "xdsServer": { "replicas": -1 } }), "xdsServer.replicas", "expected u32")]
    #[case(json!({ "xdsServer": { "resources": { "proxy": {} } } }), "xdsServer.resources.proxy", "expected xds-server")]
    #[case(json!({ "nodeAgent": { "nodeSelector": { "a": true } } }), "nodeAgent.nodeSelector.a", "expected a string")]
    #[case(json!({ "nodeAgent": { "tolerations": {} } }), "nodeAgent.tolerations", "expected a sequence")]
    #[case(json!({ "pullPolicy": "Sometimes" }), "pullPolicy", "IfNotPresent")]
    #[case(json!({ "images": "" }), "images", "expected a name")]
    #[case(json!({ "unenroll": true }), "unenroll", "weft uninstall --unenroll")]
    fn what_cannot_be_is_refused_by_its_name(#[case] given: Value, #[case] field: &str, #[case] says: &str) {
        let problem = Values::chart().unwrap().with(given).unwrap_err().to_string();
        assert!(problem.starts_with(&format!("value {field}: ")) && problem.contains(says), "{problem}");
    }
}
