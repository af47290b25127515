//! What is installed: the same files that `kubectl apply -k manifests` takes, within this program, with the values in them.

use anyhow::Context;
use serde_json::Value;

use super::values::{Values, render};

/// In the order in which they must come.
const FILES: [(&str, &str); 6] = [
    ("namespace.yaml", include_str!("../../../manifests/base/namespace.yaml")),
    ("crds.yaml", include_str!("../../../manifests/base/crds.yaml")),
    ("admission.yaml", include_str!("../../../manifests/base/admission.yaml")),
    ("rights.yaml", include_str!("../../../manifests/base/rights.yaml")),
    ("xds-server.yaml", include_str!("../../../manifests/base/xds-server.yaml")),
    ("node-agent.yaml", include_str!("../../../manifests/base/node-agent.yaml")),
];

/// What takes the CNI plugin off all nodes.
const REMOVER: &str = include_str!("../../../manifests/remove-cni.yaml");

/// The objects of `manifests/base`, labelled as the kustomization labels them.
///
/// # Errors
/// A file of ours is broken.
pub fn base() -> anyhow::Result<Vec<Value>> {
    parsed(&FILES.map(|(_name, text)| text).join("---\n"))
}

/// What is installed with these values.
///
/// # Errors
/// A file of ours is broken.
pub fn objects(values: &Values) -> anyhow::Result<Vec<Value>> {
    Ok(render(base()?, values, &Values::chart()?))
}

fn parsed(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = weft_manifest::split("manifests", text.as_bytes());
    let read = |document: Result<weft_manifest::Document, weft_manifest::Finding>| {
        let document = document.map_err(|finding| anyhow::anyhow!("{finding}"))?;
        let mut object = serde_json::to_value(document.value).context("a manifest")?;
        object["metadata"]["labels"]["app.kubernetes.io/part-of"] = "weft".into();
        Ok(object)
    };
    documents.into_iter().map(read).collect()
}

/// The DaemonSet that takes the CNI plugin off all nodes, with the image of the agents that are there, and in their directories.
///
/// # Errors
/// A file of ours is broken.
pub fn plugin_remover(agents: &Value) -> anyhow::Result<Value> {
    let mut remover = parsed(REMOVER)?.into_iter().next().context("manifests/remove-cni.yaml")?;
    let agents = &agents["spec"]["template"]["spec"];
    let pod = &mut remover["spec"]["template"]["spec"];
    for key in ["image", "imagePullPolicy"] {
        if let Some(value) = agents["containers"][0].get(key) {
            for containers in ["initContainers", "containers"] {
                pod[containers][0][key] = value.clone();
            }
        }
    }
    if let Some(secrets) = agents.get("imagePullSecrets") {
        pod["imagePullSecrets"] = secrets.clone();
    }
    for volume in pod["volumes"].as_array_mut().into_iter().flatten() {
        let mut theirs = agents["volumes"].as_array().into_iter().flatten();
        if let Some(there) = theirs.find(|there| there["name"] == volume["name"]) {
            volume["hostPath"]["path"] = there["hostPath"]["path"].clone();
        }
    }
    Ok(remover)
}

#[cfg(test)]
mod tests {
    use super::{base, objects, plugin_remover};
    use crate::cluster::values::Values;

    #[test]
    fn every_image_is_the_one_that_was_asked_for() {
        let values = serde_json::json!({ "images": "registry.example:5000/mesh", "tag": "1.2.3" });
        let objects = objects(&Values::chart().unwrap().with(values).unwrap()).unwrap();
        let pods = objects.iter().filter_map(|object| object["spec"]["template"]["spec"]["containers"].as_array());
        let images: Vec<&str> = pods.flatten().filter_map(|container| container["image"].as_str()).collect();
        assert!(images.len() >= 4, "{images:?}");
        for image in images {
            assert!(image.starts_with("registry.example:5000/mesh/") && image.ends_with(":1.2.3"), "{image}");
        }
    }

    #[test]
    fn the_plugin_goes_with_the_image_and_from_the_directories_that_are_there() {
        let mut agents = base().unwrap().pop().unwrap();
        let there = &mut agents["spec"]["template"]["spec"];
        there["containers"][0]["image"] = "registry/agent:1".into();
        there["imagePullSecrets"] = serde_json::json!([{ "name": "registry" }]);
        for volume in there["volumes"].as_array_mut().unwrap() {
            if volume["name"] == "cni-programs" {
                volume["hostPath"]["path"] = "/home/kubernetes/bin".into();
            }
        }
        let remover = plugin_remover(&agents).unwrap();
        let pod = &remover["spec"]["template"]["spec"];
        let paths: Vec<&str> = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|volume| volume["hostPath"]["path"].as_str())
            .collect();
        assert_eq!(paths, ["/home/kubernetes/bin", "/etc/cni/net.d", "/run/weft"]);
        assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
        assert_eq!(
            pod["initContainers"][0]["args"],
            serde_json::json!(["cni-install", "--remove", "--empty=/run/weft"])
        );
        for containers in ["initContainers", "containers"] {
            assert_eq!(pod[containers][0]["image"], "registry/agent:1");
        }
    }

    #[test]
    fn all_objects_are_there_and_what_others_need_comes_first() {
        let objects = base().unwrap();
        let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(&kinds[..3], ["Namespace", "ResourceQuota", "CustomResourceDefinition"]);
        assert_eq!(kinds.last(), Some(&"DaemonSet"));
        assert!(objects.iter().all(|object| object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "weft"));
        let images = include_str!("../../../manifests/kustomization.yaml");
        for (name, _) in super::FILES {
            assert!(images.contains(name), "{name} is not in the kustomization");
        }
    }
}
