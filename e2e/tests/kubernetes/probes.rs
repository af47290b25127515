//! Probes of the kubelet in strict mode.

use std::time::Duration;

use anyhow::{Result, bail};
use weft_testkit::wait;

use crate::among_others;
use crate::stage::{DEADLINE, Stage};

/// A status, and 000 without an answer, of a call from the node's own network by a program with this name.
fn call(stage: &Stage, program: &str, address: &str, port: u16) -> Result<String> {
    let script = format!("{program} -s -m 5 -o /dev/null -w '%{{http_code}}' http://{address}:{port}/; true");
    stage.exec("host", &["sh", "-c", &script])
}

/// Per container, how often it was restarted; then since when the pod is ready.
fn state(stage: &Stage) -> Result<String> {
    let path = "{range .items[*]}{.status.containerStatuses[*].restartCount} \
                {.status.conditions[?(@.type==\"Ready\")].status} \
                {.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}{end}";
    stage.kubectl(&["get", "pods", "-l", "app=probed", "-o", &format!("jsonpath={path}")])
}

/// Probes at a port of the pod that entered, and those that were refused.
fn probes(stage: &Stage, address: &str, port: u16) -> Result<(usize, usize)> {
    let lines = stage.access_log()?;
    let at_port: Vec<&String> =
        lines.iter().filter(|line| line.contains(&format!("dst.addr={address}:{port} "))).collect();
    let count = |word: &str| at_port.iter().filter(|line| line.contains(word)).count();
    Ok((count(" probe="), count("reason=mtls-required")))
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn probes_of_every_kind_pass_in_strict_mode_and_no_other_process_of_the_node_gets_in() -> Result<()> {
    let _others = among_others();
    let stage = Stage::new("probes", include_str!("probes.yaml"))?;
    stage.rolled_out("probed")?;
    stage.rolled_out("host")?;
    let address = stage.kubectl(&["get", "pods", "-l", "app=probed", "-o", "jsonpath={.items[0].status.podIP}"])?;
    assert_eq!(call(&stage, "curl", &address, 8080)?, "200", "without a mesh");
    // The host's pod has the node's network and is never captured.
    stage.label("weft.dev/mesh=enabled")?;
    stage.kubectl(&["wait", "--for=condition=weft.dev/captured", "pod", "-l", "app=probed", "--timeout=90s"])?;
    stage.label("weft.dev/mtls=strict")?;
    wait::eventually(DEADLINE, "plaintext of the node to be refused", || {
        match call(&stage, "curl", &address, 8080)?.as_str() {
            "000" => Ok(()),
            other => Err(anyhow::anyhow!("{other}")),
        }
    })?;
    let before = state(&stage)?;
    assert!(before.starts_with("0 0 0 0 True"), "{before}");
    // Ten times longer than a probe may fail (three in a row, one a second).
    wait::eventually(Duration::from_secs(120), "30 probes of each kind", || {
        for port in [8080, 9090, 9000] {
            let (entered, _) = probes(&stage, &address, port)?;
            if entered < 30 {
                bail!("{entered} at port {port}");
            }
        }
        Ok(())
    })?;
    for (program, port) in [("curl", 8080), ("/tmp/kubelet", 8080), ("curl", 9090), ("/tmp/kubelet", 9000)] {
        assert_eq!(call(&stage, program, &address, port)?, "000", "{program} to port {port}");
    }
    wait::eventually(DEADLINE, "refusals that say why", || {
        let refused = stage.access_log()?;
        let says = |line: &&String| line.contains("mtls-required") && line.contains("another process of this node");
        if refused.iter().filter(says).count() >= 4 { Ok(()) } else { Err(anyhow::anyhow!("{refused:?}")) }
    })?;
    for port in [9090, 9000] {
        assert_eq!(probes(&stage, &address, port)?.1, 1, "refused at port {port}: the call above, and no probe");
    }
    assert_eq!(state(&stage)?, before, "never unready, never restarted");
    Ok(())
}
