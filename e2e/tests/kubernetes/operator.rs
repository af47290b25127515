//! `weft` in the hands of somebody who has a kubeconfig, and nothing else: no address of any agent is reached but through the API server.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_testkit::agents::binary;
use weft_testkit::wait;

use crate::agents_away::Agentless;
use crate::local::cluster;
use crate::stage::{DEADLINE, Stage, Stream, run};
use crate::{alone, among_others, shop};

/// `weft` with these words.
pub(crate) fn weft(words: &[&str]) -> Result<Output> {
    Ok(Command::new(binary("weft")?).args(words).env_remove("WEFT_ADMIN").output()?)
}

/// What a command says as JSON, whatever its exit code.
fn json(words: &[&str]) -> Result<Value> {
    let output = weft(&[words, &["-o", "json"]].concat())?;
    let words = || format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(words)
}

/// Rows of a command.
fn rows(words: &[&str]) -> Result<Vec<Value>> {
    json(words)?.as_array().cloned().with_context(|| format!("{words:?}: no rows"))
}

/// The pods of an app in the stage: name and node.
fn pods(stage: &Stage, app: &str) -> Result<Vec<(String, String)>> {
    let label = format!("app={app}");
    let path = "{range .items[*]}{.metadata.name},{.spec.nodeName} {end}";
    let words = stage.words(&["pods", "-l", &label], path)?;
    Ok(words.iter().filter_map(|word| word.split_once(',')).map(|(pod, node)| (pod.into(), node.into())).collect())
}

/// The last line of a command that changes something, which says what became of it, and whether the exit code says so, too.
fn outcome(words: &[&str]) -> Result<(String, bool)> {
    let output = weft(&[words, &["-o", "json"]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("a line of JSON")?;
    let (last, steps) = lines.split_last().context("no line")?;
    ensure!(steps.iter().all(|step| step["step"].is_string() && step["outcome"].is_null()), "{text}");
    Ok((last["outcome"].as_str().unwrap_or_default().to_owned(), output.status.success()))
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn every_command_asks_agents_and_control_plane_through_the_api_server() -> Result<()> {
    let _others = among_others();
    let stage = shop("operator")?;
    ensure!(
        outcome(&["enroll", &stage.namespace, "--wait", "--timeout=90s"])? == ("enrolled".into(), true),
        "by weft itself"
    );
    let stream = Stream::start(&stage)?;
    let (client, node) = pods(&stage, "client")?.pop().context("no client")?;
    let named = format!("{}/{client}", stage.namespace);
    let in_stage = ["-n", &*stage.namespace];

    // Each node's agent speaks of its own pods.
    let all = rows(&[&["pods"], &in_stage[..]].concat())?;
    ensure!(all.len() == 3 && all.iter().all(|row| row["captured_here"] == true), "{all:?}");
    let one = rows(&["pods", "--pod", &named])?;
    ensure!(one.len() == 1 && one[0]["name"] == *client, "{one:?}");
    // The stream: seen by the client's agent as going out, with its node; and by name of the pod, or of the node.
    let is_out = |row: &Value| row["direction"] == "outbound" && row["source_workload"] == *named;
    let live = rows(&[&["connections"], &in_stage[..]].concat())?;
    ensure!(live.iter().any(|row| is_out(row) && row["agent"] == *node), "{live:?}");
    for which in [["--pod", &*named], ["--node", &*node]] {
        let live = rows(&[&["connections"], &which[..]].concat())?;
        ensure!(live.iter().any(is_out), "{which:?}: {live:?}");
    }
    let identity = format!("/ns/{}/sa/client", stage.namespace);
    let certificates = rows(&[&["certs"], &in_stage[..]].concat())?;
    let is_its =
        |row: &Value| row["agent"] == *node && row["identity"].as_str().is_some_and(|id| id.ends_with(&identity));
    ensure!(certificates.iter().any(is_its), "{certificates:?}");
    // The control plane, of one replica or of all.
    let services = rows(&[&["services"], &in_stage[..]].concat())?;
    ensure!(services.iter().any(|row| row["name"] == "web"), "{services:?}");
    let nodes = json(&["config"])?;
    let connected =
        |row: &Value| row["subscribers"].as_array().is_some_and(|rows| rows.iter().any(|row| row["node"] == *node));
    ensure!(nodes.as_array().is_some_and(|replicas| replicas.iter().any(connected)), "{nodes}");
    ensure!(json(&["config", "--node", &node])?["node"] == *node, "the agent's own");
    ensure!(weft(&["policies"])?.status.success() && weft(&["policies", "--server"])?.status.success(), "policies");
    ensure!(stream.end()? > 1, "the stream");
    ensure!(
        outcome(&["unenroll", &stage.namespace, "--wait", "--timeout=90s"])? == ("unenrolled".into(), true),
        "and out of it"
    );
    ensure!(outcome(&["enroll", "weft-e2e-nowhere"])? == ("failed".into(), false), "no such namespace");

    let nowhere = weft(&["certs", "--node", "nowhere"])?;
    let words = String::from_utf8_lossy(&nowhere.stderr);
    ensure!(nowhere.status.code() == Some(2) && words.contains(&node) && words.contains("next: weft check"), "{words}");
    Ok(())
}

/// A kubeconfig of a service account of the stage, which may read what most may, and nothing else.
fn reader(stage: &Stage) -> Result<tempfile::NamedTempFile> {
    stage.kubectl(&["create", "serviceaccount", "reader"])?;
    let account = format!("--serviceaccount={}:reader", stage.namespace);
    run(&["-n", "weft-system", "create", "rolebinding", &stage.namespace, "--clusterrole=view", &account], "")?;
    let token = stage.kubectl(&["create", "token", "reader"])?;
    let mut config: Value = serde_json::from_str(&run(&["config", "view", "--raw", "--minify", "-o", "json"], "")?)?;
    let user = config["contexts"][0]["context"]["user"].clone();
    config["users"] = json!([{ "name": user, "user": { "token": token.trim() } }]);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), config.to_string())?;
    Ok(file)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn whoever_may_not_forward_ports_is_told_which_right_is_missing() -> Result<()> {
    let _others = among_others();
    let stage = shop("reader")?;
    let config = reader(&stage)?;
    let output = weft(&["certs", "--kubeconfig", &config.path().display().to_string()]);
    let check = weft(&["check", "--kubeconfig", &config.path().display().to_string()]);
    run(&["-n", "weft-system", "delete", "rolebinding", &stage.namespace], "")?;
    let output = output?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && words.contains("pods/portforward"), "{words}");
    // Whoever may not list all pods is told so by the API server.
    let check = check?;
    let words = String::from_utf8_lossy(&check.stderr);
    ensure!(check.status.code() == Some(2) && words.contains("cannot list resource"), "{words}");
    Ok(())
}

/// Findings of `weft check` at a level, as `(where, finding, fix)`.
fn findings(level: &str) -> Result<Vec<(String, String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |row: &Value| (text(&row["where"]), text(&row["finding"]), text(&row["fix"]));
    Ok(rows(&["check"])?.iter().filter(|row| row["level"] == level).map(of).collect())
}

/// Until `weft check` has exit code 0 and finds nothing wrong.
fn good() -> Result<()> {
    wait::eventually(DEADLINE, "nothing for weft check to find", || {
        let output = weft(&["check"])?;
        let words = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && words.contains("All well."), "{words}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn weft_check_finds_nothing_in_a_good_cluster_and_names_each_pod_and_node_that_is_not_as_wanted() -> Result<()> {
    let _alone = alone();
    let stage = shop("check")?;
    stage.enroll()?;
    good()?;
    let of_nodes = findings("ok")?;
    for part in ["is ready", "in sync", "CNI plugin chained in /", "selected pods captured"] {
        ensure!(
            of_nodes.iter().any(|(place, words, _)| place.starts_with("node ") && words.contains(part)),
            "{of_nodes:?}"
        );
    }

    // Other clusters keep it to themselves.
    let proxies = of_nodes
        .iter()
        .any(|(_, words, _)| words.contains("kube-proxy on nodes: iptables (3)") || words.contains("nftables (3)"));
    ensure!(proxies || cluster().is_none(), "kube-proxy's mode: {of_nodes:?}");

    // A pod that cannot be captured: by name, with the reason, and what to do.
    let closed = Stage::new("closed", include_str!("taken.yaml"))?;
    closed.rolled_out("taken")?;
    closed.label("weft.dev/mesh=enabled")?;
    let (taken, _) = pods(&closed, "taken")?.pop().context("no pod")?;
    let place = format!("pod {}/{taken}", closed.namespace);
    wait::eventually(DEADLINE, "an error with the reason", || {
        let errors = findings("error")?;
        let is_it = |(found, words, fix): &(String, String, String)| {
            *found == place && words.contains("hbone-port-taken") && fix.contains(&format!("describe pod {taken}"))
        };
        ensure!(errors.len() == 1 && errors.iter().any(is_it), "{errors:?}");
        Ok(())
    })?;
    ensure!(weft(&["check"])?.status.code() == Some(1), "exit code 1");
    closed.kubectl(&["delete", "deployment", "taken"])?;
    good()?;

    // A node without its agent.
    let (_, node) = pods(&stage, "client")?.pop().context("no client")?;
    let agentless = Agentless::declare(&node)?;
    run(
        &[
            "-n",
            "weft-system",
            "delete",
            "pod",
            "-l",
            "app=weft-node-agent",
            "--field-selector",
            &format!("spec.nodeName={node}"),
        ],
        "",
    )?;
    wait::eventually(DEADLINE, "an error about the node", || {
        let errors = findings("error")?;
        let is_it = |(place, words, _): &(String, String, String)| {
            *place == format!("node {node}") && words.contains("runs no agent") && words.contains("captured there")
        };
        ensure!(errors.iter().any(is_it), "{errors:?}");
        Ok(())
    })?;
    agentless.end()?;
    good()
}
