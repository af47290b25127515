//! The chart, by the real Helm ($WEFT_HELM, which `make e2e` sets) on the local cluster: what is there is taken over, upgraded (also by
//! `weft`, which leaves what Helm has set), taken away, and installed anew. Elsewhere it says so and proves nothing: it takes the mesh of the whole cluster away.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use weft_testkit::wait;

use crate::local::{cluster, run as on_cluster};
use crate::operator::weft;
use crate::stage::{DEADLINE, Load, Stage, run};
use crate::{alone, shop};

const RELEASE: &str = "weft";
/// For an upgrade: an old agent may finish its connections for four minutes, and for so long Kubernetes counts it (decision 25).
const WAIT: &str = "330s";

struct Helm {
    program: PathBuf,
    /// Of its caches and settings: none of a person's.
    home: tempfile::TempDir,
}

impl Helm {
    fn find() -> Result<Option<Self>> {
        let Some(program) = std::env::var_os("WEFT_HELM") else {
            eprintln!("SKIPPED: no Helm ($WEFT_HELM; `weft-cluster build` makes one); nothing was proved");
            return Ok(None);
        };
        Ok(Some(Self { program: program.into(), home: tempfile::tempdir()? }))
    }

    /// Its output, whether it succeeded or not.
    fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(&self.program);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.path());
        }
        let output = command.args(["--namespace", "default"]).args(arguments).output();
        let output = output.with_context(|| self.program.display().to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout) + &text(&output.stderr)))
    }

    /// Installs or upgrades, whoever installed what is there.
    fn upgrade(&self, values: &str) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/helm");
        let chart = chart.to_str().context("a path in UTF-8")?;
        let what = ["upgrade", "--install", RELEASE, chart, "--reset-values", "--take-ownership", "--set", values];
        let (done, text) = self.run(&[&what[..], &["--wait", "--timeout", WAIT]].concat())?;
        ensure!(done, "{text}");
        let wait = format!("--timeout={WAIT}");
        run(&["-n", "weft-system", "rollout", "status", "daemonset/weft-node-agent", &wait], "").map(drop)
    }
}

/// Other tests need a mesh, whatever comes of this one.
impl Drop for Helm {
    fn drop(&mut self) {
        let _there = self.upgrade("");
    }
}

/// Everything of Weft in the cluster, by name, and the nodes' files of CNI and of the agents.
fn left(local: &[String]) -> Result<Vec<String>> {
    let kinds = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings";
    let mut found: Vec<String> = run(&["get", kinds, "-o", "name"], "")?
        .lines()
        .filter(|name| name.contains("weft") && !name.contains("/weft-e2e-"))
        .map(str::to_owned)
        .collect();
    let nodes = run(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"], "")?;
    for node in nodes.split_whitespace() {
        let script =
            "ls -d /opt/cni/bin/weft* 2>/dev/null; grep -l weft /etc/cni/net.d/*; find /run/weft -mindepth 1; true";
        found.extend(
            on_cluster(local, &["exec", node, "sh", "-c", script])?.lines().map(|file| format!("{node}:{file}")),
        );
    }
    Ok(found)
}

/// `weft upgrade`.
fn upgrade(words: &[&str]) -> Result<()> {
    let output = weft(&[&["upgrade"], words].concat())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How many replicas the control plane shall have.
fn replicas() -> Result<String> {
    run(&["-n", "weft-system", "get", "deployment/weft-xds-server", "-o", "jsonpath={.spec.replicas}"], "")
}

/// The names of disruption budgets.
fn budgets() -> Result<String> {
    run(&["-n", "weft-system", "get", "poddisruptionbudgets", "-o", "name"], "")
}

/// The label that says what the mesh's pods take.
fn mtls() -> Result<String> {
    run(&["get", "namespace", "weft-system", "-o", "jsonpath={.metadata.labels.weft\\.dev/mtls}"], "")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn helm_takes_over_upgrades_and_uninstalls_and_nothing_is_left() -> Result<()> {
    let Some(local) = cluster() else { return Ok(()) };
    let _alone = alone();
    let Some(helm) = Helm::find()? else { return Ok(()) };
    helm.upgrade("")?;
    let stage = shop("helm")?;
    stage.enroll()?;
    let load = Load::start(&stage, "http://web/")?;
    helm.upgrade("xdsServer.replicas=3")?;
    load.more(50)?;
    upgrade(&[])?;
    assert_eq!(replicas()?, "3", "what Helm has set stays set");
    upgrade(&["--set", "xdsServer.replicas=1"])?;
    assert_eq!(replicas()?, "1");
    assert_eq!(budgets()?, "", "one replica can keep none");
    let check = weft(&["check"])?;
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    upgrade(&["--set", "xdsServer.replicas=null"])?;
    assert_eq!(replicas()?, "2", "as the chart has it");
    assert_ne!(budgets()?, "");
    run(&["label", "namespace", "weft-system", "weft.dev/mtls=strict"], "")?;
    upgrade(&[])?;
    assert_eq!(mtls()?, "strict", "nobody has set it anew");
    upgrade(&["--set", "mtls=permissive"])?;
    assert_eq!(mtls()?, "", "whoever had set it");
    load.more(50)?;
    load.end()?;

    let (done, text) = helm.run(&["uninstall", RELEASE, "--timeout", "120s"])?;
    assert!(!done, "with pods in the mesh: {text}");
    let log = run(&["-n", "weft-system", "logs", "job/weft-uninstall"], "")?;
    assert!(log.contains(&format!("in the mesh: {}", stage.namespace)), "{log}");
    assert_eq!(stage.call("http://web/")?, "200", "a refusal changes nothing");
    stage.captured("True")?;

    stage.label("weft.dev/mesh-")?;
    stage.captured("False")?;
    let (done, text) = helm.run(&["uninstall", RELEASE, "--wait", "--timeout", "120s"])?;
    assert!(done, "{text}");
    wait::eventually(DEADLINE, "nothing of Weft to be left", || {
        let left = left(&local)?;
        if left.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("{left:?}")) }
    })?;
    assert_eq!(stage.call("http://web/")?, "200", "without a mesh");
    let refused = weft(&["upgrade"])?;
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("`weft install`"), "there is nothing to upgrade: {words}");
    // New pods start: no plugin asks for an agent.
    stage.kubectl(&["scale", "deployment/web", "--replicas=3"])?;
    stage.rolled_out("web")?;

    helm.upgrade("")?;
    stage.enroll()?;
    assert_eq!(stage.call("http://web/")?, "200", "installed anew");
    with_and_without_the_plugin(&helm, &local, &stage)
}

/// The value `cni.enabled`: off all nodes, and new pods start and are captured nevertheless; and there again.
fn with_and_without_the_plugin(helm: &Helm, local: &[String], stage: &Stage) -> Result<()> {
    let nodes = run(&["get", "nodes", "-o", "name"], "")?.lines().count();
    // The program and the configuration of each node.
    let files = |expected: usize| {
        wait::eventually(DEADLINE, &format!("{expected} files of CNI"), || {
            let left = left(local)?;
            let found = left.iter().filter(|name| name.contains("/cni/")).count();
            if found == expected { Ok(()) } else { Err(anyhow::anyhow!("{left:?}")) }
        })
    };
    files(2 * nodes)?;
    helm.upgrade("cni.enabled=false")?;
    files(0)?;
    stage.kubectl(&["scale", "deployment/web", "--replicas=4"])?;
    stage.rolled_out("web")?;
    stage.captured("True")?;
    helm.upgrade("")?;
    files(2 * nodes)
}
