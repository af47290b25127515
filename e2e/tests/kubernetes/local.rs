//! Promises that need a hand on the cluster itself: the local one ($WEFT_CLUSTER, which `make e2e` sets). Elsewhere they say so and
//! prove nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weft_testkit::wait;

use crate::stage::Load;
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

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn the_api_server_is_away_and_comes_back_and_no_call_fails() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let _alone = alone();
    let stage = shop("api-away")?;
    stage.enroll()?;
    // By address: a mesh does not answer for the cluster's DNS.
    let address = stage.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let load = Load::start(&stage, &format!("http://{address}/"))?;
    run(&cluster, &["stop", "apiserver"])?;
    wait::pause(AWAY);
    run(&cluster, &["resume"])?;
    load.more(100)?;
    let (calls, failed) = load.end()?;
    assert!(failed.is_empty(), "{} of {calls} calls failed: {:?}", failed.len(), failed.first());
    // And what comes afterwards is taken in.
    stage.kubectl(&["scale", "deployment/web", "--replicas=3"])?;
    stage.rolled_out("web")?;
    stage.captured("True")
}
