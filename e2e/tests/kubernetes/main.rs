//! Weft on a Kubernetes cluster: each test names the promise that it proves. Takes $KUBECONFIG and an installed Weft, and nothing else;
//! `make e2e` brings up a cluster where there is none. Ignored otherwise: a person's $KUBECONFIG may be of a cluster that is in use.

mod agents_away;
mod before;
mod helm;
mod kept;
mod lifecycle;
mod local;
mod operator;
mod packets;
mod probes;
mod rights;
mod rotation;
mod scale;
mod services;
mod stage;
mod status;
mod tokens;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::Result;
use weft_testkit::wait;

use crate::stage::{DEADLINE, Load, Stage, Stream, rolled_out, run};

/// Two servers on two nodes, behind a service and a headless one, and a client.
const SHOP: &str = include_str!("shop.yaml");

fn shop(name: &str) -> Result<Stage> {
    let stage = Stage::new(name, SHOP)?;
    stage.rolled_out("web")?;
    stage.rolled_out("client")?;
    wait::eventually(DEADLINE, "the first answer", || match stage.call("http://web/")?.as_str() {
        "200" => Ok(()),
        other => Err(anyhow::anyhow!("{other}")),
    })?;
    Ok(stage)
}

/// Most tests run beside each other; those that take a part of the cluster away run alone.
static CLUSTER: RwLock<()> = RwLock::new(());

fn among_others() -> RwLockReadGuard<'static, ()> {
    CLUSTER.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    CLUSTER.write().unwrap_or_else(PoisonError::into_inner)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn running_pods_join_and_leave_under_load_without_a_failed_request_or_a_restart() -> Result<()> {
    let _others = among_others();
    let stage = shop("join")?;
    let load = Load::start(&stage, "http://web/")?;
    for _ in 0..2 {
        stage.enroll()?;
        load.more(100)?;
        stage.label("weft.dev/mesh-")?;
        stage.captured("False")?;
        load.more(100)?;
    }
    let calls = load.end()?;
    assert!(calls > 400, "{calls}");
    let restarts =
        stage.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"])?;
    assert!(restarts.split_whitespace().all(|count| count == "0"), "{restarts}");
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn calls_carry_the_callers_identity_by_service_by_headless_name_and_by_address() -> Result<()> {
    let _others = among_others();
    let stage = shop("identity")?;
    stage.enroll()?;
    let address = stage.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"])?;
    let headless = format!("http://headless.{}.svc.cluster.local:8080/", stage.namespace);
    for url in ["http://web/", &*headless, &format!("http://{address}:8080/")] {
        assert_eq!(stage.call(url)?, "200", "{url}");
    }
    let identity = format!("src.identity=spiffe://cluster.local/ns/{}/sa/client", stage.namespace);
    wait::eventually(DEADLINE, "three calls with the client's identity at their destinations", || {
        let lines = stage.access_log()?;
        let inbound = |line: &&String| line.contains("direction=inbound") && line.contains(&identity);
        let count = lines.iter().filter(inbound).count();
        if count >= 3 { Ok(()) } else { Err(anyhow::anyhow!("{count} in {lines:?}")) }
    })
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_policy_decides_by_service_account_and_the_api_server_refuses_one_that_can_never_work() -> Result<()> {
    let _others = among_others();
    let stage = shop("policy")?;
    stage.enroll()?;
    let policy = |account: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: web}}\nspec:\n  targetRefs: [{{kind: Pod, selector: \
             {{matchLabels: {{app: web}}}}}}]\n  rules: [{{from: [{{serviceAccounts: [NAMESPACE/{account}]}}]}}]\n"
        )
    };
    for (account, expected) in [("somebody", "000"), ("client", "200"), ("somebody", "000")] {
        stage.apply(&policy(account))?;
        wait::eventually(DEADLINE, &format!("{expected} with a policy for {account}"), || {
            let status = stage.call("http://web/")?;
            if status == expected { Ok(()) } else { Err(anyhow::anyhow!("{status}")) }
        })?;
    }
    stage.kubectl(&["delete", "authorizationpolicy", "web"])?;
    wait::eventually(DEADLINE, "200 without a policy", || match stage.call("http://web/")?.as_str() {
        "200" => Ok(()),
        other => Err(anyhow::anyhow!("{other}")),
    })?;
    let never =
        policy("client").replace("rules:", "action: Deny\n  more:").replace("selector: ", "name: x, selector: ");
    assert!(stage.apply(&never).is_err(), "a Deny without rules, a Pod by name, an unknown field");
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_strict_namespace_takes_calls_from_the_mesh_alone() -> Result<()> {
    let _others = among_others();
    let (stage, outside) = (shop("strict")?, shop("outside")?);
    stage.enroll()?;
    let url = format!("http://web.{}/", stage.namespace);
    assert_eq!(outside.call(&url)?, "200", "permissive");
    stage.label("weft.dev/mtls=strict")?;
    wait::eventually(DEADLINE, "plaintext to be refused", || match outside.call(&url)?.as_str() {
        "000" => Ok(()),
        other => Err(anyhow::anyhow!("{other}")),
    })?;
    assert_eq!(stage.call("http://web/")?, "200", "from the mesh");
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn jobs_and_init_containers_of_enrolled_pods_complete() -> Result<()> {
    let _others = among_others();
    let stage = shop("job")?;
    stage.enroll()?;
    // So that an answer proves that the mesh carried the call, also that of an init container.
    stage.label("weft.dev/mtls=strict")?;
    stage.apply(include_str!("job.yaml"))?;
    stage.kubectl(&["wait", "--for=condition=complete", "job/once", "--timeout=90s"]).map(drop)
}

/// Agents that are ready and have not been told to end.
fn agents() -> Result<Vec<String>> {
    let path = "{range .items[*]}{.metadata.name},{.metadata.deletionTimestamp},{.status.conditions[?(@.type==\"Ready\")].status}\n{end}";
    let path = format!("jsonpath={path}");
    let rows = run(&["-n", "weft-system", "get", "pods", "-l", "app=weft-node-agent", "-o", &path], "")?;
    Ok(rows.lines().filter_map(|row| row.strip_suffix(",,True")).map(str::to_owned).collect())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn agents_are_replaced_node_by_node_and_no_call_fails_and_no_stream_ends() -> Result<()> {
    let _alone = alone();
    let stage = shop("agents")?;
    stage.enroll()?;
    let (load, stream) = (Load::start(&stage, "http://web/")?, Stream::start(&stage)?);
    let before = agents()?;
    run(&["-n", "weft-system", "rollout", "restart", "daemonset/weft-node-agent"], "")?;
    // Not until the set counts as rolled out: that it does when the old agents have ended, and those wait for the stream.
    wait::eventually(DEADLINE, "a new agent on every node", || {
        let now = agents()?;
        let new = now.iter().filter(|agent| !before.contains(agent)).count();
        if new == before.len() && now.len() == new { Ok(()) } else { Err(anyhow::anyhow!("{new} of {}", before.len())) }
    })?;
    load.more(100)?;
    load.end()?;
    assert!(stream.end()? > 5, "it went on all the time");
    rolled_out("weft-system", "daemonset/weft-node-agent")?;
    stage.captured("True")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn an_agent_that_is_deleted_before_there_is_another_fails_no_call() -> Result<()> {
    let _alone = alone();
    let stage = shop("deleted")?;
    stage.enroll()?;
    let load = Load::start(&stage, "http://web/")?;
    let agents = run(&["-n", "weft-system", "get", "pods", "-l", "app=weft-node-agent", "-o", "name"], "")?;
    for agent in agents.lines() {
        run(&["-n", "weft-system", "delete", agent], "")?;
        rolled_out("weft-system", "daemonset/weft-node-agent")?;
    }
    load.more(100)?;
    load.end()?;
    stage.captured("True")
}
