//! Promises that need a hand on the cluster itself: the local one ($WEFT_CLUSTER, which `make e2e` sets). Elsewhere they say so and
//! prove nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weft_testkit::wait;

use crate::stage::{self, DEADLINE, Load, Stage};
use crate::{alone, shop};

/// Longer than a watch, a probe or a lease may be late; agents and control plane have to live with it.
const AWAY: Duration = Duration::from_mins(2);

/// `weft-cluster` with its options, as words; none where the cluster is somebody else's.
pub(crate) fn cluster() -> Option<Vec<String>> {
    let words = std::env::var_os("WEFT_CLUSTER");
    let words = words.map(|words| words.to_string_lossy().split_whitespace().map(str::to_owned).collect());
    if words.is_none() {
        eprintln!("SKIPPED: not the local cluster (no $WEFT_CLUSTER); nothing was proved");
    }
    words
}

/// Runs `weft-cluster`.
pub(crate) fn run(cluster: &[String], arguments: &[&str]) -> Result<String> {
    let (program, options) = cluster.split_first().context("a program")?;
    let output = Command::new(program).args(options).args(arguments).output()?;
    if !output.status.success() {
        bail!("weft-cluster {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// By address, not by name: a mesh does not answer for the cluster's DNS.
fn load_by_address(stage: &Stage) -> Result<Load<'_>> {
    let address = stage.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    Load::start(stage, &format!("http://{address}/"))
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn the_api_server_is_away_and_comes_back_and_no_call_fails() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let _alone = alone();
    let stage = shop("api-away")?;
    stage.enroll()?;
    let load = load_by_address(&stage)?;
    run(&cluster, &["stop", "apiserver"])?;
    wait::pause(AWAY);
    run(&cluster, &["resume"])?;
    load.more(100)?;
    load.end()?;
    // And what comes afterwards is taken in.
    stage.kubectl(&["scale", "deployment/web", "--replicas=3"])?;
    stage.rolled_out("web")?;
    stage.captured("True")
}

/// The kubelets of all nodes stand still, as nodes do that are cut off from the API server: pods serve, and nobody hears of them.
struct Silence<'c> {
    cluster: &'c [String],
    nodes: Vec<String>,
}

impl<'c> Silence<'c> {
    fn begin(cluster: &'c [String]) -> Result<Self> {
        let nodes = stage::run(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"], "")?;
        let silence = Self { cluster, nodes: nodes.split_whitespace().map(str::to_owned).collect() };
        silence.signal("STOP")?;
        Ok(silence)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let command = format!("kill -{signal} $(pidof kubelet)");
        self.nodes.iter().try_for_each(|node| run(self.cluster, &["exec", node, "sh", "-c", &command]).map(drop))
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _speaks = self.signal("CONT");
    }
}

/// Kubernetes then counts every endpoint as not ready; so it does for a while after the API server was away, by luck.
#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn services_go_on_when_nothing_is_heard_of_any_of_their_nodes() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let _alone = alone();
    let stage = shop("silent")?;
    stage.enroll()?;
    let load = load_by_address(&stage)?;
    let ready = || {
        let slices = ["endpointslices", "-l", "kubernetes.io/service-name=web"];
        stage.words(&slices, "{.items[*].endpoints[*].conditions.ready}")
    };
    {
        let _silence = Silence::begin(&cluster)?;
        wait::eventually(DEADLINE, "no endpoint that is ready", || {
            let ready = ready()?;
            ensure!(!ready.is_empty() && ready.iter().all(|word| word == "false"), "{ready:?}");
            Ok(())
        })?;
        // Calls in that state; nothing of the cluster could tell how many, with its kubelets silent.
        wait::pause(AWAY / 12);
    }
    wait::eventually(DEADLINE, "endpoints that are ready", || {
        ensure!(ready()?.iter().all(|word| word == "true"), "not yet");
        Ok(())
    })?;
    stage::run(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=90s"], "")?;
    load.more(20)?;
    load.end().map(drop)
}
