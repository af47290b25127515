//! Which pods of a cluster are our programs, and which of them is asked. Pure.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::Value;

/// Where Weft is installed.
pub const NAMESPACE: &str = "weft-system";

/// What a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A node's agent.
    Agent,
    /// A replica of the control plane.
    Server,
}

impl Role {
    /// The label that its pods have.
    #[must_use]
    pub fn selector(self) -> &'static str {
        match self {
            Self::Agent => "app=weft-node-agent",
            Self::Server => "app=weft-xds-server",
        }
    }

    /// The port of its admin pages, at 127.0.0.1 of its pod (docs/ports.md).
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Agent => 15000,
            Self::Server => 15014,
        }
    }
}

/// A pod of ours that runs, and has not been told to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What it is.
    pub role: Role,
    /// Its pod.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// All of its containers are ready.
    pub ready: bool,
    /// When it was made: RFC 3339, so that texts compare as times.
    made: String,
}

impl Program {
    /// Whom people know: the node of an agent, the pod of a server.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.role {
            Role::Agent => &self.node,
            Role::Server => &self.pod,
        }
    }
}

/// Those among these pods. Of the agents one for each node: two are there while one takes over from the other, and then the one that is
/// ready counts, and the younger one of two.
#[must_use]
pub fn programs(role: Role, pods: &[Value]) -> Vec<Program> {
    let mut found = BTreeMap::new();
    for program in pods.iter().filter_map(|pod| program(role, pod)) {
        let better = |held: &Program| (held.ready, &held.made) < (program.ready, &program.made);
        if found.get(program.name()).is_none_or(better) {
            found.insert(program.name().to_owned(), program);
        }
    }
    found.into_values().collect()
}

fn program(role: Role, pod: &Value) -> Option<Program> {
    let metadata = &pod["metadata"];
    if !metadata["deletionTimestamp"].is_null() || pod["status"]["phase"] != "Running" {
        return None;
    }
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Program {
        role,
        pod: text(&metadata["name"]),
        node: text(&pod["spec"]["nodeName"]),
        ready: conditions.into_iter().any(ready),
        made: text(&metadata["creationTimestamp"]),
    })
}

/// The agent of a node.
///
/// # Errors
/// There is none: says where there are some, and what to do.
pub fn on(node: &str, agents: Vec<Program>) -> anyhow::Result<Program> {
    let nodes = agents.iter().map(|agent| agent.node.clone()).collect::<Vec<_>>().join(", ");
    match agents.into_iter().find(|agent| agent.node == node) {
        Some(agent) => Ok(agent),
        None if nodes.is_empty() => bail!("{}", nobody(Role::Agent)),
        None => bail!(
            "no agent runs on node {node}; agents run on {nodes}\n  next: weft check, or kubectl -n {NAMESPACE} get pods -o wide"
        ),
    }
}

/// What to say where no such program runs.
#[must_use]
pub fn nobody(role: Role) -> String {
    let what = if role == Role::Agent { "agent" } else { "weft-xds-server" };
    format!("no {what} runs in namespace {NAMESPACE}\n  next: weft check says why, weft install installs")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Role, on, programs};

    fn pod(name: &str, node: &str, made: &str, ready: &str, ends: bool) -> Value {
        json!({
            "metadata": {
                "name": name, "creationTimestamp": format!("2026-11-23T0{made}:00:00Z"),
                "deletionTimestamp": ends.then_some("2026-11-23T09:00:00Z"),
            },
            "spec": { "nodeName": node },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        })
    }

    #[test]
    fn one_agent_for_each_node_the_ready_one_then_the_younger_one() {
        let mut never = pod("g", "4", "1", "False", false);
        never["status"]["phase"] = "Pending".into();
        let pods = [
            pod("a", "1", "1", "True", false),
            pod("b", "1", "2", "False", false),
            pod("c", "2", "1", "True", false),
            pod("d", "2", "2", "True", false),
            pod("e", "3", "1", "True", true),
            pod("f", "3", "2", "False", false),
            never,
        ];
        let found: Vec<_> = programs(Role::Agent, &pods).into_iter().map(|agent| (agent.node, agent.pod)).collect();
        assert_eq!(found, [("1", "a"), ("2", "d"), ("3", "f")].map(|(node, pod)| (node.to_owned(), pod.to_owned())));
        assert_eq!(programs(Role::Server, &pods).len(), 5, "replicas may share a node");
    }

    #[test]
    fn a_node_without_an_agent_is_said_with_those_that_have_one() {
        let agents = || programs(Role::Agent, &[pod("a", "1", "1", "True", false), pod("b", "2", "1", "True", false)]);
        assert_eq!(on("2", agents()).unwrap().pod, "b");
        let wrong = on("3", agents()).unwrap_err().to_string();
        assert!(wrong.contains("agents run on 1, 2") && wrong.contains("next:"), "{wrong}");
        assert!(on("3", Vec::new()).unwrap_err().to_string().contains("weft install"));
    }
}
