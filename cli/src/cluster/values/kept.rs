//! The values that a cluster has, read back out of its objects: so a setting stays, whoever made it (`weft`, Helm), until it is set
//! anew. The inverse of [`super::render`]. Pure.
//!
//! What is given in place of something of `manifests/base` is read from the annotation that says so, never by comparing: a later version
//! has another base, and what an earlier one had would look as if somebody had set it.

use anyhow::Context;
use serde_json::Value;
use weft_model::enrolment::MTLS_LABEL;

use super::render::{SET, VALUES};
use super::typed::{Mtls, Part, PullPolicy, Server, Values};

/// The values of these objects, as the cluster has them, but for what [`placed`] reads; what they do not say is as the chart says it.
#[must_use]
pub fn kept(live: &[Value], chart: &Values) -> Values {
    let find = |kind: &str| live.iter().find(|object| object["kind"] == kind);
    let mut values = chart.clone();
    if find("Namespace").is_some_and(|namespace| namespace["metadata"]["labels"][MTLS_LABEL] == "strict") {
        values.mtls = Mtls::Strict;
    }
    if let Some(agents) = find("DaemonSet") {
        shared(agents, &mut values);
        values.cni.enabled = keeps_plugin(agents);
        for (name, value) in
            [("cni-configurations", &mut values.cni.configurations), ("cni-programs", &mut values.cni.programs)]
        {
            let volume = list(&agents["spec"]["template"]["spec"]["volumes"]).find(|volume| volume["name"] == name);
            if let Some(path) = volume.and_then(|volume| volume["hostPath"]["path"].as_str()) {
                path.clone_into(value);
            }
        }
    }
    if let Some(server) = find("Deployment") {
        shared(server, &mut values);
        let replicas = server["spec"]["replicas"].as_u64().and_then(|replicas| u32::try_from(replicas).ok());
        // Somebody who stopped the control plane did not set how many replicas it shall have.
        values.xds_server.replicas = replicas.filter(|some| *some > 0).unwrap_or(chart.xds_server.replicas);
    }
    values
}

/// The same, with what is given in place of something of `manifests/base`: resources, node selectors, tolerations.
///
/// # Errors
/// Somebody has broken the annotation that says so.
pub fn placed(live: &[Value], mut values: Values) -> anyhow::Result<Values> {
    for object in live {
        match object["kind"].as_str() {
            Some("DaemonSet") => values.node_agent = part(object)?,
            Some("Deployment") => {
                let Part { resources, node_selector, tolerations } = part(object)?;
                values.xds_server = Server { resources, node_selector, tolerations, ..values.xds_server };
            }
            _ => {}
        }
    }
    Ok(values)
}

/// Whether agents of this DaemonSet put the plugin there, rather than keep it away.
#[must_use]
pub fn keeps_plugin(agents: &Value) -> bool {
    let removes = |container: &Value| list(&container["args"]).any(|word| word == "--remove");
    containers(agents).any(|container| container["name"] == "cni" && !removes(container))
}

/// What both parts have.
fn shared(object: &Value, values: &mut Values) {
    if let Some(first) = containers(object).next() {
        image(first, values);
    }
    let secrets = list(&object["spec"]["template"]["spec"]["imagePullSecrets"]);
    values.pull_secrets = secrets.filter_map(Value::as_object).cloned().collect();
    let is_set = |container: &&Value| SET.iter().any(|name| container["name"] == *name);
    let Some(set) = containers(object).find(is_set) else { return };
    for (name, field) in values.settings_mut() {
        let said = list(&set["env"]).find(|entry| entry["name"] == name);
        if let Some(said) = said.and_then(|entry| entry["value"].as_str()) {
            said.clone_into(field);
        }
    }
}

fn part(object: &Value) -> anyhow::Result<Part> {
    let said = object["metadata"]["annotations"][VALUES].as_str().unwrap_or("{}");
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    serde_json::from_str(said).with_context(|| {
        format!("annotation {VALUES} of {name} ({said}): expected JSON, as `weft install` writes it; --reset-values does without")
    })
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

fn containers(object: &Value) -> impl Iterator<Item = &Value> {
    list(&object["spec"]["template"]["spec"]["containers"])
}

#[cfg(test)]
mod tests;
