//! The values that a cluster has, read back out of its objects: so a setting stays, whoever made it (`weft`, Helm), until it is set
//! anew. The inverse of [`super::render`]. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_model::enrolment::MTLS_LABEL;

use super::render::{NO_PLUGIN, SET};
use super::typed::{Mtls, Part, PullPolicy, Values};

/// The values of these objects, as the cluster has them; `base` are those of `manifests/base`, whose values are `chart`. What is not
/// there has the values of the chart.
#[must_use]
pub fn kept(live: &[Value], base: &[Value], chart: &Values) -> Values {
    let find = |objects: &[Value], kind: &str| objects.iter().find(|object| object["kind"] == kind).cloned();
    let mut values = chart.clone();
    if find(live, "Namespace").is_some_and(|namespace| namespace["metadata"]["labels"][MTLS_LABEL] == "strict") {
        values.mtls = Mtls::Strict;
    }
    if let (Some(set), Some(base)) = (find(live, "DaemonSet"), find(base, "DaemonSet")) {
        let pod = Pod { live: &set["spec"]["template"]["spec"], base: &base["spec"]["template"]["spec"] };
        pod.shared(&mut values);
        values.node_agent = pod.part();
        values.cni.enabled = pod.container("cni").is_none_or(|cni| cni["args"] != json!(NO_PLUGIN));
        for (name, value) in
            [("cni-configurations", &mut values.cni.configurations), ("cni-programs", &mut values.cni.programs)]
        {
            let volume = list(&pod.live["volumes"]).find(|volume| volume["name"] == name);
            if let Some(path) = volume.and_then(|volume| volume["hostPath"]["path"].as_str()) {
                path.clone_into(value);
            }
        }
    }
    if let (Some(server), Some(base)) = (find(live, "Deployment"), find(base, "Deployment")) {
        let pod = Pod { live: &server["spec"]["template"]["spec"], base: &base["spec"]["template"]["spec"] };
        pod.shared(&mut values);
        let Part { resources, node_selector, tolerations } = pod.part();
        (values.xds_server.resources, values.xds_server.node_selector) = (resources, node_selector);
        values.xds_server.tolerations = tolerations;
        let replicas = server["spec"]["replicas"].as_u64().and_then(|replicas| u32::try_from(replicas).ok());
        // Somebody who stopped the control plane did not set how many replicas it shall have.
        values.xds_server.replicas = replicas.filter(|some| *some > 0).unwrap_or(chart.xds_server.replicas);
    }
    values
}

/// The specification of pods, as it is and as it would be without values.
struct Pod<'v> {
    live: &'v Value,
    base: &'v Value,
}

impl Pod<'_> {
    fn container(&self, name: &str) -> Option<&Value> {
        list(&self.live["containers"]).find(|container| container["name"] == name)
    }

    /// What both parts have.
    fn shared(&self, values: &mut Values) {
        if let Some(first) = list(&self.live["containers"]).next() {
            image(first, values);
        }
        values.pull_secrets = maps(&self.live["imagePullSecrets"]);
        let Some(set) = SET.iter().find_map(|name| self.container(name)) else { return };
        for (name, field) in values.settings_mut() {
            let said = list(&set["env"]).find(|entry| entry["name"] == name);
            if let Some(said) = said.and_then(|entry| entry["value"].as_str()) {
                said.clone_into(field);
            }
        }
    }

    fn part(&self) -> Part {
        let base = |name: &Value| list(&self.base["containers"]).find(|container| container["name"] == *name);
        let resources = list(&self.live["containers"]).filter_map(|container| {
            let resources = container["resources"].as_object()?;
            let differs = base(&container["name"])?["resources"].as_object() != Some(resources);
            differs.then(|| Some((container["name"].as_str()?.to_owned(), resources.clone())))?
        });
        let selector = self.live["nodeSelector"].as_object().into_iter().flatten();
        let selector = selector.filter(|(key, value)| self.base["nodeSelector"][key.as_str()] != **value);
        let tolerations = maps(&self.live["tolerations"]);
        Part {
            resources: resources.collect(),
            node_selector: selector
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<BTreeMap<_, _>>(),
            tolerations: if tolerations == maps(&self.base["tolerations"]) { Vec::new() } else { tolerations },
        }
    }
}

/// Registry, tag and when to pull. Kubernetes writes down what it decides by itself: that was not set.
fn image(container: &Value, values: &mut Values) {
    let Some((images, name)) = container["image"].as_str().and_then(|image| image.rsplit_once('/')) else { return };
    let tag = name.split_once(':').map_or("latest", |(_, tag)| tag);
    (values.images, values.tag) = (images.to_owned(), tag.to_owned());
    let decided = if tag == "latest" { PullPolicy::Always } else { PullPolicy::IfNotPresent };
    let policy = serde_json::from_value(container["imagePullPolicy"].clone()).unwrap_or_default();
    values.pull_policy = if policy == decided { PullPolicy::AsKubernetes } else { policy };
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn maps(value: &Value) -> Vec<Map<String, Value>> {
    list(value).filter_map(Value::as_object).cloned().collect()
}

#[cfg(test)]
mod tests;
