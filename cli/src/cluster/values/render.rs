//! The values in the objects of `manifests/base`: what `manifests/helm/templates` does for Helm. Pure.

use serde_json::{Value, json};
use weft_model::enrolment::MTLS_LABEL;

use super::typed::{Mtls, Part, PullPolicy, Values};

/// How the files name our images.
const IMAGES: &str = "localhost/weft/";

/// Containers whose programs have settings. What a program has by itself is not said, as in `manifests/base`.
pub(super) const SET: [&str; 2] = ["xds-server", "proxy"];
/// The annotation of a Deployment or DaemonSet that says what is in place of something of `manifests/base`, for [`super::kept`].
pub(super) const VALUES: &str = "weft.dev/values";
/// Off the node, and it stays off: to leave the container away would leave the plugin there.
const NO_PLUGIN: [&str; 3] = ["cni-install", "--remove", "--stay"];

/// The objects of `manifests/base` with the values in them; `chart` are the values that these have already.
#[must_use]
pub fn render(objects: Vec<Value>, values: &Values, chart: &Values) -> Vec<Value> {
    // A disruption budget that one replica cannot keep would keep its node from being drained.
    let is_there = |object: &Value| object["kind"] != "PodDisruptionBudget" || values.xds_server.replicas > 1;
    let set = |mut object: Value| {
        match object["kind"].as_str() {
            Some("Namespace") if values.mtls == Mtls::Strict => {
                object["metadata"]["labels"][MTLS_LABEL] = "strict".into();
            }
            Some("Deployment") => {
                object["spec"]["replicas"] = values.xds_server.replicas.into();
                runs(&mut object, &values.xds_server.part(), values, chart);
            }
            Some("DaemonSet") => runs(&mut object, &values.node_agent, values, chart),
            _ => {}
        }
        object
    };
    objects.into_iter().filter(is_there).map(set).collect()
}

/// A Deployment or DaemonSet.
fn runs(object: &mut Value, part: &Part, values: &Values, chart: &Values) {
    let mut said = json!(part);
    if let Value::Object(said) = &mut said {
        said.retain(|_, value| *value != json!({}) && *value != json!([]));
    }
    if said != json!({}) {
        object["metadata"]["annotations"][VALUES] = said.to_string().into();
    }
    let pod = &mut object["spec"]["template"]["spec"];
    if !values.pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(values.pull_secrets);
    }
    for (key, value) in &part.node_selector {
        pod["nodeSelector"][key] = json!(value);
    }
    if !part.tolerations.is_empty() {
        pod["tolerations"] = json!(part.tolerations);
    }
    for one in pod["containers"].as_array_mut().into_iter().flatten() {
        container(one, part, values, chart);
    }
    for volume in pod["volumes"].as_array_mut().into_iter().flatten() {
        match volume["name"].as_str() {
            Some("cni-configurations") => volume["hostPath"]["path"] = json!(values.cni.configurations),
            Some("cni-programs") => volume["hostPath"]["path"] = json!(values.cni.programs),
            _ => {}
        }
    }
}

fn container(container: &mut Value, part: &Part, values: &Values, chart: &Values) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    if let Some((_, image)) = container["image"].as_str().and_then(|image| image.split_once(IMAGES)) {
        let image = image.split(':').next().unwrap_or_default();
        container["image"] = format!("{}/{image}:{}", values.images, values.tag()).into();
    }
    if values.pull_policy != PullPolicy::AsKubernetes {
        container["imagePullPolicy"] = json!(values.pull_policy);
    }
    if let Some(resources) = part.resources.get(&name) {
        container["resources"] = json!(resources);
    }
    if SET.contains(&name.as_str())
        && let Some(environment) = container["env"].as_array_mut()
    {
        let differs = values.settings().into_iter().zip(chart.settings()).filter(|(now, chart)| now != chart);
        environment.extend(differs.map(|((name, value), _)| json!({ "name": name, "value": value })));
    }
    if name == "cni" && !values.cni.enabled {
        container["args"] = json!(NO_PLUGIN);
    }
}
