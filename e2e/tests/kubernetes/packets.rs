//! What is on the wire of a node that loses its power, boots, and has no agent yet: packets of the local cluster's wire.

use anyhow::{Context, Result, ensure};
use weft_testkit::wait;
use weft_testkit::wire::Capture;

use crate::agents_away::{Agentless, another_node, waits_for_the_agent};
use crate::alone;
use crate::local::{cluster, run as hand};
use crate::stage::{DEADLINE, Stage, all};

const CLIENT: &str = include_str!("objects/client.yaml");
const EACH: &str = include_str!("objects/each.yaml");
/// A pod that calls without a pause, from the first moment on.
const CALLER: &str = include_str!("objects/caller.yaml");
/// In the path of every call.
const MARKER: &str = "marker-of-plaintext";
/// Frames with this many markers prove that the capture sees plaintext.
const ENOUGH: u64 = 10;

/// The wire of one node of the local cluster: its end at the bridge.
fn wire_of(cluster: &[String], node: &str) -> Result<Capture> {
    let named = cluster.iter().position(|word| word == "--name").and_then(|place| cluster.get(place + 1));
    let name = named.map_or("weft", |name| name);
    let number = node.strip_prefix("node").context("nodes of the local cluster have numbers")?;
    Capture::start(&format!("{name}-net"), &format!("port{number}"), &[MARKER])
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_node_that_boots_without_its_agent_sends_no_plaintext_and_its_pods_are_in_the_mesh_again_afterwards() -> Result<()>
{
    let Some(cluster) = cluster() else { return Ok(()) };
    let _alone = alone();
    let stage = Stage::ready("boot", &[CLIENT, EACH])?;
    let node = another_node(&stage)?;
    let urls: Vec<String> =
        stage.addresses()?.into_iter().chain(["http://each/".to_owned()]).map(|url| url + MARKER).collect();
    // On the node, and on another one towards it.
    let other = stage.words(&["pods", "-l", "app=client"], "{.items[0].spec.nodeName}")?.concat();
    for (name, on) in [("caller", &node), ("far", &other)] {
        let caller = CALLER.replace("caller", name).replace("NODE", on).replace("URLS", &urls.join(" "));
        stage.apply(&caller)?;
        stage.rolled_out(name)?;
    }
    let wire = wire_of(&cluster, &node)?;
    wait::eventually(DEADLINE, "plaintext on the wire, as long as nothing is enrolled", || {
        let seen = wire.report().markers();
        ensure!(seen >= ENOUGH, "{seen}");
        Ok(())
    })?;
    stage.enroll()?;
    let encrypted = |moment: &str, wire: &Capture| -> Result<()> {
        let frames = wire.report().frames;
        wait::eventually(DEADLINE, "traffic of the mesh", || {
            let report = wire.report();
            ensure!(report.frames > frames && report.on_port(15_008).iter().any(|flow| flow.bytes > 0), "nothing");
            Ok(())
        })?;
        wire.report().assert_no_marker().with_context(|| moment.to_owned())
    };
    // The last calls from before have ended within their 2 s.
    wait::eventually(DEADLINE, "no plaintext any more", || {
        wire.forget();
        wait::pause(std::time::Duration::from_millis(2500));
        wire.report().assert_no_marker()
    })?;
    encrypted("enrolled", &wire)?;
    hand(&cluster, &["kill", &node])?;
    let agentless = Agentless::declare(&node)?;
    hand(&cluster, &["start", &node])?;
    // The kubelet has its pods to start, and may not.
    waits_for_the_agent(&stage, "caller")?;
    let report = wire.report();
    report.assert_no_marker().context("the node runs without its agent")?;
    ensure!(report.frames > 0, "nothing was seen of the node at all");
    agentless.end()?;
    stage.rolled_out("caller")?;
    stage.kubectl(&["rollout", "status", "daemonset/each", "--timeout=180s"])?;
    stage.captured("True")?;
    let names = ["http://each/".to_owned()];
    stage
        .expect("client", &all(stage.addresses()?.into_iter().chain(names.clone()), "200"))
        .context("towards the node")?;
    stage.expect("caller", &all(names, "200")).context("from the node")?;
    encrypted("the agent is back", &wire)
}
