//! The chart, the kustomization and `weft install` are the same objects, as the real Helm and the real kubectl render them, and each
//! value of the chart changes what it names.
//!
//! Helm is `$WEFT_HELM` (as in `make e2e`: then it must work) or what `weft-cluster build` made; kubectl likewise, `$WEFT_KUBECTL`. Where
//! neither is, a line of the output says that nothing was compared.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use weft_cli::cluster::manifests;
use weft_cli::cluster::values::Values;
use weft_model::workload::{DEFAULT_CLUSTER, DEFAULT_TRUST_DOMAIN};

/// By kind, namespace and name.
type Objects = BTreeMap<(String, String, String), Value>;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The words of a command: what the variable says, or a program in the folder of the local cluster.
fn program(variable: &str, built: &str, more: &[&str]) -> Option<Command> {
    if let Some(words) = std::env::var_os(variable) {
        let words = words.to_string_lossy().into_owned();
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().expect("$WEFT_HELM and $WEFT_KUBECTL are commands"));
        command.args(words);
        return Some(command);
    }
    // target/debug/weft, target/cluster/bin/helm
    let built = Path::new(env!("CARGO_BIN_EXE_weft")).ancestors().nth(2)?.join("cluster/bin").join(built);
    if !built.exists() {
        // Written past libtest's capture: what was not compared must be seen.
        let message =
            format!("SKIPPED: no {}, nothing compared (`weft-cluster build`, or ${variable})", built.display());
        let _seen = writeln!(std::io::stderr(), "{message}");
        return None;
    }
    let mut command = Command::new(built);
    command.args(more);
    Some(command)
}

fn run_helm(arguments: &[&OsStr]) -> Option<Output> {
    let mut command = program("WEFT_HELM", "helm", &[])?;
    let home = tempfile::tempdir().unwrap();
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    Some(command.args(arguments).output().unwrap())
}

fn chart() -> PathBuf {
    repository().join("manifests/helm")
}

/// `helm template` of the chart with these arguments.
fn helm(arguments: &[&str]) -> Option<Output> {
    let chart = chart();
    let begin = ["template".as_ref(), "weft".as_ref(), chart.as_os_str()];
    run_helm(&[&begin[..], &arguments.iter().map(AsRef::as_ref).collect::<Vec<&OsStr>>()].concat())
}

fn rendered(arguments: &[&str]) -> Option<Objects> {
    let output = helm(arguments)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(keyed(parsed(&output.stdout)))
}

fn parsed(yaml: &[u8]) -> Vec<Value> {
    let documents = weft_manifest::split("objects", yaml);
    documents.into_iter().map(|document| serde_json::to_value(document.unwrap().value).unwrap()).collect()
}

fn keyed(objects: Vec<Value>) -> Objects {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut by_name = Objects::new();
    for object in objects {
        let metadata = &object["metadata"];
        let key = (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
        assert!(by_name.insert(key.clone(), object).is_none(), "{key:?} is there twice");
    }
    by_name
}

/// What `weft install` applies with these values.
fn installed(values: Value) -> Objects {
    keyed(manifests::objects(&Values::chart().unwrap().with(values).unwrap()).unwrap())
}

fn pod<'o>(objects: &'o Objects, kind: &str, name: &str) -> &'o Value {
    let key = (kind.to_owned(), "weft-system".to_owned(), name.to_owned());
    &objects[&key]["spec"]["template"]["spec"]
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    list.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name} in {list}"))
}

#[track_caller]
fn assert_same(one: &Objects, other: &Objects) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (key, object) in one {
        assert_eq!(object, &other[key], "{key:?}");
    }
}

#[test]
fn the_kustomization_is_what_weft_installs() {
    let Some(mut command) = program("WEFT_KUBECTL", "kube", &["kubectl"]) else { return };
    let output = command.arg("kustomize").arg(repository().join("manifests")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_same(&keyed(parsed(&output.stdout)), &installed(json!({})));
}

#[test]
fn what_a_dry_run_prints_is_what_kubectl_reads() {
    let values = json!({ "network": "Yes", "nodeAgent": { "nodeSelector": { "mesh": "on", "zone": "0x10" } } });
    let arguments = values.as_object().unwrap().iter().map(|(key, value)| format!("--set={key}={value}"));
    let printed =
        Command::new(env!("CARGO_BIN_EXE_weft")).args(["install", "--dry-run"]).args(arguments).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weft.yaml"), printed.stdout).unwrap();
    std::fs::write(folder.path().join("kustomization.yaml"), "resources: [weft.yaml]\n").unwrap();
    let Some(mut command) = program("WEFT_KUBECTL", "kube", &["kubectl"]) else { return };
    let output = command.arg("kustomize").arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_same(&keyed(parsed(&output.stdout)), &installed(values));
}

#[test]
fn the_chart_is_what_weft_installs() {
    let Some(objects) = rendered(&["--no-hooks"]) else { return };
    assert_same(&objects, &installed(json!({})));
    let objects = rendered(&["--no-hooks", "--set", "images=registry.example:5000/mesh,tag=v1.2.3"]).unwrap();
    assert_same(&objects, &installed(json!({ "images": "registry.example:5000/mesh", "tag": "v1.2.3" })));
}

#[test]
fn a_package_of_the_chart_is_whole_though_its_base_is_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let chart = chart();
    let package: [&OsStr; 4] =
        ["package".as_ref(), chart.as_os_str(), "--destination".as_ref(), folder.path().as_os_str()];
    let Some(output) = run_helm(&package) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = folder.path().join(format!("weft-{}.tgz", env!("CARGO_PKG_VERSION")));
    let output = run_helm(&["template".as_ref(), "weft".as_ref(), file.as_os_str()]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_same(&keyed(parsed(&output.stdout)), &rendered(&[]).unwrap());
}

#[test]
fn values_of_the_chart_change_what_they_name_and_nothing_else() {
    let values = "mtls=strict,trustDomain=mesh.example,pullPolicy=Always,pullSecrets[0].name=registry,cni.enabled=false,\
                  cni.programs=/home/kubernetes/bin,xdsServer.replicas=1,nodeAgent.nodeSelector.mesh=on,\
                  nodeAgent.resources.proxy.limits.memory=1Gi,nodeAgent.tolerations[0].key=mesh";
    let Some(objects) = rendered(&["--set", values]) else { return };
    let namespace = &objects[&("Namespace".to_owned(), String::new(), "weft-system".to_owned())];
    assert_eq!(namespace["metadata"]["labels"]["weft.dev/mtls"], "strict");
    assert!(objects.keys().all(|(kind, ..)| kind != "PodDisruptionBudget"), "one replica cannot keep it");
    let server = pod(&objects, "Deployment", "weft-xds-server");
    let container = &server["containers"][0];
    assert_eq!(named(&container["env"], "TRUST_DOMAIN")["value"], "mesh.example");
    assert_eq!(container["imagePullPolicy"], "Always");
    let agent = pod(&objects, "DaemonSet", "weft-node-agent");
    assert_eq!(agent["imagePullSecrets"], json!([{ "name": "registry" }]));
    assert_eq!(agent["nodeSelector"], json!({ "kubernetes.io/os": "linux", "mesh": "on" }));
    assert_eq!(agent["tolerations"], json!([{ "key": "mesh" }]));
    let proxy = named(&agent["containers"], "proxy");
    assert_eq!(named(&proxy["env"], "TRUST_DOMAIN")["value"], "mesh.example");
    assert_eq!(proxy["resources"], json!({ "limits": { "memory": "1Gi" } }));
    // The capture half knows no identities.
    let capture = named(&agent["containers"], "capture")["env"].as_array().unwrap();
    let names: Vec<&str> = capture.iter().filter_map(|entry| entry["name"].as_str()).collect();
    assert_eq!(names, ["NODE_NAME", "WEFT_KUBELET"]);
    let cni = named(&agent["containers"], "cni");
    assert_eq!(cni["args"], json!(["cni-install", "--remove", "--stay"]));
    assert_eq!(named(&agent["volumes"], "cni-programs")["hostPath"]["path"], "/home/kubernetes/bin");
    assert_eq!(named(&agent["volumes"], "cni-configurations")["hostPath"]["path"], "/etc/cni/net.d");
}

/// `helm template` with these values in a file.
fn with_file(values: &Value) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, weft_manifest::write_plain(std::slice::from_ref(values))).unwrap();
    helm(&["--no-hooks", "--values", file.to_str().unwrap()])
}

#[test]
fn values_mean_the_same_to_helm_and_to_weft() {
    for values in [
        json!({ "tag": "v2", "pullPolicy": "Never", "pullSecrets": [{ "name": "a" }, { "name": "b" }] }),
        json!({ "mtls": "strict", "trustDomain": "mesh.example", "clusterDomain": "a.b", "cluster": "east", "network": "n1" }),
        json!({ "network": "n1", "cni": { "enabled": false, "configurations": "/c", "programs": "/p" } }),
        json!({ "xdsServer": {
            "replicas": 1, "nodeSelector": { "a": "b" }, "tolerations": [{ "key": "k", "operator": "Exists" }],
            "resources": { "xds-server": { "limits": { "memory": "1Gi" } } },
        } }),
        json!({ "xdsServer": { "replicas": 3 }, "nodeAgent": {
            "nodeSelector": { "kubernetes.io/os": "other", "mesh": "on" }, "tolerations": [{ "key": "k" }],
            "resources": { "watch": { "requests": { "cpu": "1" } }, "cni": { "limits": { "cpu": 2 } } },
        } }),
    ] {
        let Some(output) = with_file(&values) else { return };
        assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
        assert_same(&keyed(parsed(&output.stdout)), &installed(values));
    }
}

#[test]
fn what_helm_refuses_weft_refuses() {
    for values in [
        json!({ "images": "" }),
        json!({ "pullPolicy": "always" }),
        json!({ "mtls": "off" }),
        json!({ "trustDomain": "" }),
        json!({ "cni": { "programs": "bin" } }),
        json!({ "cni": { "enable": true } }),
        json!({ "xdsServer": { "replicas": 0 } }),
        json!({ "xdsServer": { "resources": { "server": {} } } }),
        json!({ "nodeAgent": { "replicas": 1 } }),
        json!({ "nodeAgent": { "tolerations": ["a"] } }),
        json!({ "unknown": 1 }),
    ] {
        let problem = Values::chart().unwrap().with(values.clone()).map(drop).unwrap_err().to_string();
        assert!(problem.starts_with("value "), "{problem}");
        let Some(output) = with_file(&values) else { continue };
        assert!(!output.status.success(), "{values}: {problem}");
    }
}

#[test]
fn what_the_chart_cannot_do_is_refused() {
    for (arguments, says) in [
        (&["--set", "xdsServer.replica=3"][..], "replica"),
        (&["--set", "mtls=Strict"], "mtls"),
        (&["--set", "xdsServer.replicas=0"], "replicas"),
        (
            &["--namespace", "weft-system", "--set", "mtls=strict"],
            "kubectl label namespace weft-system weft.dev/mtls=strict",
        ),
        (&["--kube-version", "1.30.9"], "1.31"),
    ] {
        let Some(output) = helm(arguments) else { return };
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && problem.contains(says), "{arguments:?}: {problem}");
    }
    // A release that is kept in weft-system finds its namespace there.
    let objects = rendered(&["--namespace", "weft-system"]).unwrap();
    assert!(objects.keys().all(|(kind, ..)| kind != "Namespace"));
}

#[test]
fn the_hook_says_what_weft_understands() {
    for values in ["unenroll=false", "unenroll=true"] {
        let Some(objects) = rendered(&["--set", values]) else { return };
        let job = pod(&objects, "Job", "weft-uninstall");
        let words: Vec<&str> =
            job["containers"][0]["command"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(words[0], "/usr/bin/weft");
        let output = Command::new(env!("CARGO_BIN_EXE_weft")).args(&words[1..]).arg("--help").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(words.contains(&"--unenroll"), values.ends_with("true"));
    }
}

#[test]
fn versions_and_defaults_are_those_of_the_programs() {
    let text = |file: &str| std::fs::read_to_string(repository().join("manifests").join(file)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let chart = text("helm/Chart.yaml");
    for key in ["version", "appVersion"] {
        assert!(chart.lines().any(|line| line == format!("{key}: {version}")), "{key} in Chart.yaml");
    }
    let values = text("helm/values.yaml");
    for (key, default) in [("trustDomain", DEFAULT_TRUST_DOMAIN), ("cluster", DEFAULT_CLUSTER)] {
        assert!(values.lines().any(|line| line == format!("{key}: {default}")), "{key} in values.yaml");
        assert!(
            text("helm/templates/_pods.tpl").contains(&format!("$values.{key} \"{default}\"")),
            "{key} in _pods.tpl"
        );
    }
    let images = ["helm/base/xds-server.yaml", "helm/base/node-agent.yaml", "remove-cni.yaml"].map(text).join("\n");
    let images: Vec<&str> = images.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    assert!(images.len() >= 7 && images.iter().all(|image| image.ends_with(&format!(":{version}"))), "{images:?}");
}
