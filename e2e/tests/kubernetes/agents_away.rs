//! A node without its agent: what starts there meanwhile, and what a CNI configuration written by somebody else means.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_testkit::wait;

use crate::alone;
use crate::stage::{DEADLINE, NONE, Stage, all, run, url};

const CLIENT: &str = include_str!("objects/client.yaml");
const EACH: &str = include_str!("objects/each.yaml");
/// A pod on a certain node that calls as soon as it runs.
const LATE: &str = include_str!("objects/late.yaml");
const EDITOR: &str = include_str!("objects/editor.yaml");

/// What the CNI plugin says of a pod that has to wait for the agent.
const WAITS: &str = "not started before Weft's agent";

/// A node that the agents' DaemonSet leaves out until this is dropped. The others' agents stay as they are.
pub(crate) struct Agentless {
    node: String,
    /// How the DaemonSet replaces its pods.
    strategy: String,
}

const DAEMONSET: [&str; 4] = ["-n", "weft-system", "daemonset", "weft-node-agent"];

/// `kubectl VERB` for the DaemonSet.
fn daemonset(verb: &str, words: &[&str]) -> Result<String> {
    let [option, namespace, kind, name] = DAEMONSET;
    run(&[&[option, namespace, verb, kind, name], words].concat(), "")
}

impl Agentless {
    /// From now on no new agent comes; one that runs ends.
    pub(crate) fn declare(node: &str) -> Result<Self> {
        let strategy = daemonset("get", &["-o", "jsonpath={.spec.updateStrategy}"])?;
        let agentless = Self { node: node.to_owned(), strategy };
        let elsewhere = json!({ "key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node] });
        let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": [elsewhere] }] });
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": terms } });
        // Or all agents would be replaced, because the template is another one.
        let strategy = json!({ "type": "OnDelete", "rollingUpdate": null });
        agentless.patch(&strategy, &affinity)?;
        Ok(agentless)
    }

    fn patch(&self, strategy: &Value, affinity: &Value) -> Result<()> {
        let spec = json!({ "updateStrategy": strategy, "template": { "spec": { "affinity": affinity } } });
        daemonset("patch", &["--type=merge", "-p", &json!({ "spec": spec }).to_string()]).map(drop)
    }

    fn restore(&self) -> Result<()> {
        self.patch(&serde_json::from_str(&self.strategy)?, &Value::Null)
    }

    /// Of the agents on that node, each one's words.
    fn agents(&self, path: &str) -> Result<String> {
        let on = format!("--field-selector=spec.nodeName={}", self.node);
        let path = format!("jsonpath={{.items[*]{path}}}");
        run(&["-n", "weft-system", "get", "pods", "-l", "app=weft-node-agent", &on, "-o", &path], "")
    }

    /// Until the agent that was there is gone.
    fn gone(&self) -> Result<()> {
        wait::eventually(DEADLINE, "the end of the agent", || {
            let pods = self.agents(".metadata.name")?;
            ensure!(pods.trim().is_empty(), "{pods}");
            Ok(())
        })
    }

    /// The agent comes back, and is ready.
    pub(crate) fn end(self) -> Result<()> {
        self.restore()?;
        wait::eventually(2 * DEADLINE, "the agent to be ready again", || {
            let words = self.agents(".status.conditions[?(@.type==\"Ready\")].status")?;
            ensure!(words.trim() == "True", "{words}");
            Ok(())
        })
    }
}

impl Drop for Agentless {
    fn drop(&mut self) {
        let _done_already = self.restore();
    }
}

/// A node where nothing of this test's clients runs, and that does not hold the cluster's DNS either.
pub(crate) fn another_node(stage: &Stage) -> Result<String> {
    let path = "{.items[*].spec.nodeName}";
    let taken = stage.words(&["pods", "-l", "app=client"], path)?;
    let dns =
        run(&["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", &format!("jsonpath={path}")], "")?;
    let nodes = stage.words(&["pods", "-l", "app=each"], path)?;
    let free = |node: &String| !taken.contains(node) && !dns.split_whitespace().any(|other| other == node);
    nodes.into_iter().find(free).context("the test needs three nodes, one without DNS")
}

/// Until the events of pods of this namespace say that one waits for the agent. A kubelet that has just booted may need some 100 s
/// until it has noticed that its pods are gone.
pub(crate) fn waits_for_the_agent(stage: &Stage, pods: &str) -> Result<()> {
    wait::eventually(3 * DEADLINE, "an event that says why a pod waits", || {
        let path = "jsonpath={range .items[*]}{.involvedObject.name} {.message}{\"\\n\"}{end}";
        let events = stage.kubectl(&["get", "events", "-o", path])?;
        ensure!(events.lines().any(|line| line.starts_with(pods) && line.contains(WAITS)), "{events}");
        Ok(())
    })
}

/// The first line of a pod's log, once there is one.
fn first_words(stage: &Stage, pod: &str) -> Result<String> {
    wait::eventually(DEADLINE, &format!("the first words of {pod}"), || {
        let text = stage.kubectl(&["logs", pod])?;
        text.lines().next().map(str::to_owned).context("not yet")
    })
}

fn late(name: &str, node: &str, url: &str) -> String {
    LATE.replace("NAME", name).replace("NODE", node).replace("URL", url)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn without_an_agent_pods_are_closed_and_new_ones_wait_and_all_goes_on_when_it_is_back() -> Result<()> {
    let _alone = alone();
    let stage = Stage::ready("no-agent", &[CLIENT, EACH])?;
    stage.enroll()?;
    stage.label("weft.dev/mtls=strict")?;
    stage.expect("client", &all(stage.addresses()?, "200"))?;
    let node = another_node(&stage)?;
    let agentless = Agentless::declare(&node)?;
    agentless.gone()?;
    let on_node = ["pods", "-l", "app=each", &format!("--field-selector=spec.nodeName={node}")];
    let closed: Vec<String> = stage.words(&on_node, "{.items[*].status.podIPs[*].ip}")?;
    let closed: Vec<String> = closed.iter().map(|address| url(address, 8080)).collect();
    let open: Vec<String> = stage.addresses()?.into_iter().filter(|url| !closed.contains(url)).collect();
    stage.apply(&late("late", &node, "http://each/"))?;
    let hosted = late("hosted", &node, "http://each/").replace("spec:\n", "spec:\n  hostNetwork: true\n");
    stage.apply(&hosted)?;
    stage.expect("client", &[all(closed.clone(), NONE), all(open, "200")].concat()).context("the agent is away")?;
    waits_for_the_agent(&stage, "late")?;
    // Pods of the node's network need no agent, and are no part of the mesh: strict pods refuse it.
    ensure!(first_words(&stage, "hosted")? == NONE, "a pod in the node's network was let in");
    let phase = stage.words(&["pod", "late"], "{.status.phase} {.status.containerStatuses[*].started}")?;
    ensure!(phase == ["Pending", "false"], "{phase:?}");
    ensure!(agentless.agents(".metadata.name")?.trim().is_empty(), "an agent was there after all");
    agentless.end()?;
    // Its first call is in the mesh, and answered.
    let first = first_words(&stage, "late")?;
    ensure!(first == "200", "the first call of a pod that had to wait: {first}");
    stage.wait_captured("app=late", "True")?;
    stage.expect("client", &all(closed, "200")).context("the agent is back")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_cni_configuration_that_somebody_writes_anew_has_the_plugin_again_and_the_next_pod_is_captured() -> Result<()> {
    let _alone = alone();
    let stage = Stage::ready("cni", &[CLIENT, EACH])?;
    stage.enroll()?;
    stage.label("weft.dev/mtls=strict")?;
    let node = another_node(&stage)?;
    stage.apply(&EDITOR.replace("NODE", &node))?;
    stage.kubectl(&["wait", "--for=condition=Ready", "pod/editor", "--timeout=90s"])?;
    let edit = |script: &str| stage.kubectl(&["exec", "editor", "--", "sh", "-c", script]);
    let file = edit("ls /net.d/*.conflist | head -n 1")?.trim().to_owned();
    let mut configuration: Value = serde_json::from_str(&edit(&format!("cat {file}"))?)?;
    let plugins = configuration["plugins"].as_array_mut().context("a list of plugins")?;
    let before = plugins.len();
    plugins.retain(|plugin| plugin["type"] != "weft-cni");
    ensure!(plugins.len() == before - 1, "{file} has the plugin once: {configuration}");
    // As a primary plugin does that starts anew.
    let text = serde_json::to_string(&configuration)?;
    edit(&format!("printf '%s' '{text}' > /net.d/.new && mv /net.d/.new {file}"))?;
    wait::eventually(DEADLINE, "the plugin in the configuration again", || {
        let text = edit(&format!("cat {file}"))?;
        ensure!(text.contains("weft-cni"), "{text}");
        Ok(())
    })?;
    stage.apply(&late("late", &node, "http://each/"))?;
    let first = first_words(&stage, "late")?;
    ensure!(first == "200", "the first call of the next pod: {first}");
    stage.wait_captured("app=late", "True")
}
