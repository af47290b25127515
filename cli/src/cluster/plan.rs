//! What `weft install` and `weft upgrade` make of a cluster: its values as they are, what is given laid over them, and the objects
//! that follow. What was set stays set, whoever set it, until it is set anew.

use anyhow::bail;
use serde_json::{Value, json};
use weft_kubernetes::Cluster;

use super::manifests;
use super::options::{Act, InstallOptions};
use super::values::{Values, differences, kept, placed};

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
    plan(&[], given, false)
}

/// For this cluster.
///
/// # Errors
/// A value that cannot be, or cannot be any more; nothing is there to be upgraded; the API server does not say what there is.
pub(super) async fn of(cluster: &Cluster, given: Value, options: &InstallOptions, act: Act) -> anyhow::Result<Plan> {
    let live = live(cluster).await?;
    if live.is_empty() && act == Act::Upgrade {
        bail!("Weft is not installed in this cluster; `weft install` does that");
    }
    plan(&live, given, options.values.reset_values)
}

/// What says which values a cluster has; nothing where Weft is not there.
async fn live(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let mut live = Vec::new();
    for object in manifests::base()? {
        if ["Namespace", "Deployment", "DaemonSet"].iter().any(|kind| object["kind"] == *kind) {
            live.extend(cluster.read(&object).await?);
        }
    }
    // A namespace alone is there before, or after.
    let runs = live.iter().any(|object| object["kind"] != "Namespace");
    Ok(if runs { live } else { Vec::new() })
}

fn plan(live: &[Value], given: Value, reset: bool) -> anyhow::Result<Plan> {
    let chart = Values::chart()?;
    let current = kept(live, &chart);
    let begin = match reset {
        true => chart.clone(),
        // The tag is what an upgrade is about.
        false => placed(live, current.clone())?.with(json!({ "tag": null }))?,
    };
    let values = begin.with(given)?;
    if !live.is_empty() && current.trust_domain != values.trust_domain {
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
        in_force(&self.values, &kept(&live(cluster).await?, &Values::chart()?))
    }
}

fn in_force(wanted: &Values, found: &Values) -> anyhow::Result<()> {
    for ((name, wanted), (_, found)) in wanted.settings().into_iter().zip(found.settings()) {
        if wanted != found {
            bail!(
                "{name} is {found:?}, not {wanted:?}: something else has set it (`kubectl -n weft-system get deployment,daemonset -o yaml \
                 --show-managed-fields` says what); set it there"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{in_force, plan};
    use crate::cluster::manifests;
    use crate::cluster::values::{Mtls, Values};

    /// What a cluster has that was installed with these values.
    fn cluster(given: serde_json::Value) -> Vec<serde_json::Value> {
        manifests::objects(&Values::chart().unwrap().with(given).unwrap()).unwrap()
    }

    #[test]
    fn what_was_set_stays_and_what_is_given_is_laid_over_it() {
        let there = json!({
            "tag": "0.0.9", "images": "registry/weft", "mtls": "strict", "cni": { "programs": "/a" },
            "nodeAgent": { "nodeSelector": { "mesh": "on" } },
        });
        let plan = plan(&cluster(there), json!({ "cni": { "programs": "/b" } }), false).unwrap();
        let values = &plan.values;
        assert_eq!((&*values.tag, &*values.images), ("", "registry/weft"), "a new version from where the old one was");
        assert_eq!((values.mtls, &*values.cni.programs), (Mtls::Strict, "/b"));
        let mut set = plan.set;
        set.sort();
        assert_eq!(set, ["cni.programs=/b", "images=registry/weft", "mtls=strict", "nodeAgent.nodeSelector.mesh=on"]);
    }

    #[test]
    fn values_can_be_reset_but_not_the_trust_domain() {
        let mut there = cluster(json!({ "mtls": "strict", "trustDomain": "mesh.example" }));
        let agents = there.last_mut().unwrap();
        agents["metadata"]["annotations"]["weft.dev/values"] = "broken".into();
        let problem = plan(&there, json!({}), false).unwrap_err().to_string();
        assert!(problem.contains("weft.dev/values of weft-node-agent (broken)"), "{problem}");
        let problem = plan(&there, json!({}), true).unwrap_err().to_string();
        assert!(
            problem.starts_with("value trustDomain: ") && problem.contains("--set trustDomain=mesh.example"),
            "{problem}"
        );
        let plan = plan(&there, json!({ "trustDomain": "mesh.example" }), true).unwrap();
        assert_eq!((plan.values.mtls, plan.set), (Mtls::Permissive, vec!["trustDomain=mesh.example".to_owned()]));
    }

    #[test]
    fn what_an_earlier_version_had_by_itself_is_not_taken_for_set() {
        let mut there = cluster(json!({}));
        let agents = &mut there.last_mut().unwrap()["spec"]["template"]["spec"];
        agents["containers"][0]["resources"] = json!({ "requests": { "cpu": "1m" } });
        agents["tolerations"] = json!([]);
        agents["nodeSelector"]["old"] = "yes".into();
        assert_eq!(plan(&there, json!({}), false).unwrap().set, [""; 0]);
    }

    #[test]
    fn what_somebody_else_has_set_beside_ours_is_said() {
        let chart = Values::chart().unwrap();
        let theirs = chart.with(json!({ "network": "theirs" })).unwrap();
        let problem = in_force(&chart, &theirs).unwrap_err().to_string();
        assert!(problem.starts_with("NETWORK is \"theirs\", not \"\": "), "{problem}");
        assert!(in_force(&theirs, &theirs).is_ok());
    }

    #[test]
    fn what_the_values_do_not_want_is_taken_away() {
        assert!(plan(&[], json!({}), false).unwrap().unwanted.is_empty());
        let one = plan(&[], json!({ "xdsServer": { "replicas": 1 } }), false).unwrap();
        let kinds: Vec<&str> = one.unwanted.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["PodDisruptionBudget"]);
    }
}
