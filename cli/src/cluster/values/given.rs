//! What the command line gives: files, then single values, then the options that have a name of their own.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use weft_manifest::read_plain;

use super::tree::{at, lay_over, path};
use crate::cluster::options::ValueOptions;

/// One tree; empty where nothing is given.
///
/// # Errors
/// A file cannot be read, or is no map; a `--set` is no `PATH=VALUE`.
pub fn given(options: &ValueOptions) -> anyhow::Result<Value> {
    let mut tree = json!({});
    for file in &options.values {
        lay_over(&mut tree, of_file(file)?);
    }
    for one in &options.set {
        lay_over(&mut tree, single(one).map_err(|problem| anyhow::anyhow!("--set {one}: {problem}"))?);
    }
    for (name, value) in [("images", &options.images), ("tag", &options.tag)] {
        if let Some(value) = value {
            lay_over(&mut tree, json!({ name: value }));
        }
    }
    Ok(tree)
}

fn of_file(file: &PathBuf) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--values {}", file.display()))?;
    match read_plain(&text) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(Value::Null) => Ok(json!({})),
        Ok(_) => bail!("--values {}: expected a map, as manifests/helm/values.yaml is one", file.display()),
        Err(problem) => bail!("--values {}: {problem}", file.display()),
    }
}

/// `cni.programs=/opt/cni/bin`: the value is YAML.
fn single(text: &str) -> Result<Value, String> {
    let (keys, value) = text.split_once('=').ok_or("expected PATH=VALUE, such as cni.programs=/opt/cni/bin")?;
    // An empty text is a text, as for Helm.
    let value = if value.is_empty() { Value::from("") } else { read_plain(value)? };
    Ok(at(&path(keys)?, value))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{given, single};
    use crate::cluster::options::ValueOptions;

    #[rstest]
    #[case("mtls=strict", json!({ "mtls": "strict" }))]
    #[case("xdsServer.replicas=3", json!({ "xdsServer": { "replicas": 3 } }))]
    #[case("network=", json!({ "network": "" }))]
    #[case("network=null", json!({ "network": null }))]
    #[case("nodeAgent.tolerations=[{key: a, value: b=c}]", json!({ "nodeAgent": { "tolerations": [{ "key": "a", "value": "b=c" }] } }))]
    fn a_single_value(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(single(text), Ok(expected));
    }

    #[rstest]
    #[case("mtls", "expected PATH=VALUE")]
    #[case("=strict", "names no value")]
    #[case("a=[", "line 2")]
    fn what_is_no_single_value(#[case] text: &str, #[case] says: &str) {
        let options = ValueOptions { set: vec![text.to_owned()], ..ValueOptions::default() };
        let problem = given(&options).unwrap_err().to_string();
        assert!(problem.starts_with(&format!("--set {text}: ")) && problem.contains(says), "{problem}");
    }

    #[test]
    fn what_comes_later_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let values = vec![
            file("a.yaml", "tag: one\ncni: {programs: /a, enabled: false}\n"),
            file("b.yaml", "# only\ncni: {programs: /b}\nimages: there\n"),
            file("empty.yaml", "# nothing\n"),
        ];
        let set = ["cni.configurations=/c", "tag=two", "network=null"].map(str::to_owned).to_vec();
        let options = ValueOptions { values, set, tag: Some("three".to_owned()), ..ValueOptions::default() };
        assert_eq!(
            given(&options).unwrap(),
            json!({ "tag": "three", "images": "there", "network": null, "cni": { "programs": "/b", "enabled": false, "configurations": "/c" } })
        );
    }

    #[test]
    fn files_that_are_no_values() {
        let folder = tempfile::tempdir().unwrap();
        let (list, broken) = (folder.path().join("list.yaml"), folder.path().join("broken.yaml"));
        std::fs::write(&list, "[1]").unwrap();
        std::fs::write(&broken, "a: [\n").unwrap();
        for (file, says) in [(list, "expected a map"), (broken, "line 2"), (PathBuf::from("/none"), "--values /none")] {
            let problem = given(&ValueOptions { values: vec![file], ..ValueOptions::default() }).unwrap_err();
            assert!(format!("{problem:#}").contains(says), "{problem:#}");
        }
    }
}
