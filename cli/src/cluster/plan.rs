//! What `weft install` and `weft upgrade` make of a cluster: its values as they are, what is given laid over them, and the objects
//! that follow. What was set stays set, whoever set it, until it is set anew.

use anyhow::bail;
use serde_json::{Value, json};
use weft_kubernetes::Cluster;

use super::install::Act;
use super::manifests;
use super::options::InstallOptions;
use super::values::{Values, differences, kept};

/// What shall be there.
#[derive(Debug)]
pub(super) struct Plan {
    /// All values.
    pub(super) values: Values,
    /// Those that are not the chart's, as `path=value`.
    pub(super) set: Vec<String>,
    /// In the order in which they must come.
    pub(super) objects: Vec<Value>,
    /// What `manifests/base` has and these values do not want.
    pub(super) unwanted: Vec<Value>,
}

/// For a cluster that has nothing yet; none is asked.
///
/// # Errors
/// A value that cannot be.
pub(super) fn alone(given: Value) -> anyhow::Result<Plan> {
    plan(None, given, false)
}

/// For this cluster.
///
/// # Errors
/// A value that cannot be, or cannot be any more; nothing is there to be upgraded; the API server does not say what there is.
pub(super) async fn of(cluster: &Cluster, given: Value, options: &InstallOptions, act: Act) -> anyhow::Result<Plan> {
    let current = current(cluster).await?;
    if current.is_none() && act == Act::Upgrade {
        bail!("Weft is not installed in this cluster; `weft install` does that");
    }
    plan(current, given, options.values.reset_values)
}

/// The values of the cluster, if Weft is there.
async fn current(cluster: &Cluster) -> anyhow::Result<Option<Values>> {
    let base = manifests::base()?;
    let mut live = Vec::new();
    for object in
        base.iter().filter(|object| ["Namespace", "Deployment", "DaemonSet"].map(Value::from).contains(&object["kind"]))
    {
        live.extend(cluster.read(object).await?);
    }
    let runs = live.iter().any(|object| object["kind"] != "Namespace");
    Ok(if runs { Some(kept(&live, &base, &Values::chart()?)) } else { None })
}

fn plan(current: Option<Values>, given: Value, reset: bool) -> anyhow::Result<Plan> {
    let chart = Values::chart()?;
    let begin = match &current {
        // The tag is what an upgrade is about.
        Some(current) if !reset => current.with(json!({ "tag": null }))?,
        _ => chart.clone(),
    };
    let values = begin.with(given)?;
    if let Some(current) = current.filter(|current| current.trust_domain != values.trust_domain) {
        bail!(
            "value trustDomain: is {:?}, and the root and every certificate are made for {:?}; expected that (--set trustDomain={1}) or a new \
             installation after `weft uninstall`",
            values.trust_domain,
            current.trust_domain
        );
    }
    let objects = manifests::objects(&values)?;
    let is_wanted = |base: &Value| {
        objects.iter().any(|one| one["kind"] == base["kind"] && one["metadata"]["name"] == base["metadata"]["name"])
    };
    let mut unwanted = manifests::base()?;
    unwanted.retain(|base| !is_wanted(base));
    let set = differences(&serde_json::to_value(&chart)?, &serde_json::to_value(&values)?);
    Ok(Plan { values, set, objects, unwanted })
}

impl Plan {
    /// Whether the programs have what was set: another program's word for the same variable would stay beside ours.
    ///
    /// # Errors
    /// They have not: says which value, and where to look.
    pub(super) async fn is_in_force(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let Some(now) = current(cluster).await? else { return Ok(()) };
        let pairs = self.values.settings().into_iter().zip(now.settings());
        for ((name, wanted), (_, found)) in pairs {
            if wanted != found {
                bail!(
                    "{name} is {found:?}, not {wanted:?}: something else has set it (`kubectl -n weft-system get deployment,daemonset -o yaml \
                     --show-managed-fields` says what); set it there"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::plan;
    use crate::cluster::values::{Mtls, Values};

    fn with(given: serde_json::Value) -> Values {
        Values::chart().unwrap().with(given).unwrap()
    }

    #[test]
    fn what_was_set_stays_and_what_is_given_is_laid_over_it() {
        let current =
            with(json!({ "tag": "0.0.9", "images": "registry/weft", "mtls": "strict", "cni": { "programs": "/a" } }));
        let plan = plan(Some(current), json!({ "cni": { "programs": "/b" } }), false).unwrap();
        assert_eq!(
            (&*plan.values.tag, &*plan.values.images),
            ("", "registry/weft"),
            "a new version from where the old one was"
        );
        assert_eq!((plan.values.mtls, &*plan.values.cni.programs), (Mtls::Strict, "/b"));
        let mut set = plan.set;
        set.sort();
        assert_eq!(set, ["cni.programs=/b", "images=registry/weft", "mtls=strict"]);
    }

    #[test]
    fn values_can_be_reset_but_not_the_trust_domain() {
        let current = || Some(with(json!({ "mtls": "strict", "trustDomain": "mesh.example" })));
        let problem = plan(current(), json!({}), true).unwrap_err().to_string();
        assert!(
            problem.starts_with("value trustDomain: ") && problem.contains("--set trustDomain=mesh.example"),
            "{problem}"
        );
        let plan = plan(current(), json!({ "trustDomain": "mesh.example" }), true).unwrap();
        assert_eq!((plan.values.mtls, plan.set), (Mtls::Permissive, vec!["trustDomain=mesh.example".to_owned()]));
    }

    #[test]
    fn what_the_values_do_not_want_is_taken_away() {
        assert!(plan(None, json!({}), false).unwrap().unwanted.is_empty());
        let one = plan(None, json!({ "xdsServer": { "replicas": 1 } }), false).unwrap();
        let kinds: Vec<&str> = one.unwanted.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["PodDisruptionBudget"]);
    }
}
