//! Many services with many endpoints beside a few pods: a change still arrives soon, and nothing restarts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_testkit::wait;

use crate::among_others;
use crate::stage::{DEADLINE, Stage, all, run};

const CLIENT: &str = include_str!("objects/client.yaml");
const EACH: &str = include_str!("objects/each.yaml");
const SERVICES: u8 = 200;
/// Of each service: 1,000 in all.
const ENDPOINTS: u8 = 5;
/// From a change at the API server to a call that goes by it. Some 100 ms on an idle machine, most of it `kubectl`; two cores with
/// three nodes on them, and other tests beside, need seconds.
const CHANGE: Duration = Duration::from_secs(15);

/// A service without selector and its endpoints, nobody's addresses (RFC 2544) where none are given.
fn slice(number: u8, addresses: &[String]) -> Value {
    let fake: Vec<String> = (1..=ENDPOINTS).map(|last| format!("198.18.{number}.{last}")).collect();
    let addresses = if addresses.is_empty() { &fake } else { addresses };
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({ "addresses": [address], "conditions": { "ready": true } })).collect();
    let name = format!("many-{number}");
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "ports": [{ "name": "http", "port": 8080 }], "endpoints": endpoints })
}

fn service(number: u8) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("many-{number}") },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } })
}

/// Of each agent by its pod's name: addresses that it holds, and its resident memory in MiB.
fn agents() -> Result<BTreeMap<String, (u64, u64)>> {
    let names = run(&["-n", "weft-system", "get", "pods", "-l", "app=weft-node-agent", "-o", "name"], "")?;
    let mut found = BTreeMap::new();
    for pod in names.lines().filter_map(|name| name.strip_prefix("pod/")) {
        let page =
            run(&["get", "--raw", &format!("/api/v1/namespaces/weft-system/pods/{pod}:15020/proxy/metrics")], "")?;
        let value = |name: &str| -> Result<f64> {
            let line = page.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
            Ok(line.trim().parse()?)
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and bytes of a test")]
        let whole = |number: f64| number as u64;
        let held = whole(value("weft_xds_held{type=\"Address\"} ")?);
        found.insert(pod.to_owned(), (held, whole(value("process_resident_memory_bytes ")?) >> 20));
    }
    ensure!(!found.is_empty(), "no agents");
    Ok(found)
}

/// How often the containers of Weft were started again.
fn restarts() -> Result<BTreeMap<String, String>> {
    let path = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{\"\\n\"}{end}";
    let text = run(&["-n", "weft-system", "get", "pods", "-o", path], "")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(pod, count)| (pod.to_owned(), count.to_owned()))
        .collect())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn with_200_services_and_1000_endpoints_a_change_arrives_soon_and_nothing_restarts() -> Result<()> {
    let _others = among_others();
    let stage = Stage::ready("scale", &[CLIENT, EACH])?;
    stage.enroll()?;
    let (before, started) = (agents()?, restarts()?);
    let items: Vec<Value> = (0..SERVICES).flat_map(|number| [service(number), slice(number, &[])]).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let begun = Instant::now();
    run(&["-n", &stage.namespace, "create", "-f", "-"], &list.to_string())?;
    let created = begun.elapsed();
    let more = u64::from(SERVICES) * (1 + u64::from(ENDPOINTS));
    let after = wait::eventually(DEADLINE, "the services and endpoints in all agents", || {
        let now = agents()?;
        let lacks =
            now.iter().find(|(pod, (held, _))| *held < before.get(*pod).map_or(0, |(held, _)| *held) + more / 2);
        ensure!(lacks.is_none(), "{lacks:?}, before {before:?}");
        Ok(now)
    })?;
    eprintln!("scale: created in {created:.1?}, in all agents after {:.1?} in all", begun.elapsed());
    for (pod, (held, memory)) in &after {
        eprintln!("scale: {pod}: holds {held}, {memory} MiB; before {:?}", before.get(pod));
    }
    let addresses = stage.words(&["pods", "-l", "app=each"], "{.items[*].status.podIP}")?;
    let mut slowest = Duration::ZERO;
    for number in [0, SERVICES / 2, SERVICES - 1] {
        let url = format!("http://many-{number}/");
        let begun = Instant::now();
        stage.apply(&slice(number, &addresses).to_string())?;
        stage.expect("client", &all([url], "200"))?;
        slowest = slowest.max(begun.elapsed());
    }
    eprintln!("scale: the slowest of three changes was in force after {slowest:.1?}, kubectl included");
    ensure!(slowest < CHANGE, "a change took {slowest:.1?}");
    for (pod, count) in restarts()? {
        let then = started.get(&pod).cloned().unwrap_or_else(|| count.replace(|digit: char| digit != ' ', "0"));
        ensure!(then == count, "containers of {pod} were started again: {then}, now {count}");
    }
    Ok(())
}
