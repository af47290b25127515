//! Two nodes, some pods, the programs, and everything that travels between the nodes.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::{Deployment, Extra, SERVER_PORT};
use weft_testkit::mesh::{Cluster, PodPlan, ServicePlan};
use weft_testkit::netns::{Lab, Pod};
use weft_testkit::traffic::{Behaviour, Server};
use weft_testkit::wait;
use weft_testkit::wire::{Capture, Flow};

use super::flags::SoakFlags;

/// What must never be seen on the wire.
pub(super) const MARKER: &str = "4111-MARKER";
/// How long a call may take before it has failed: longer than any fault lasts, so that what only waits is answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// From the end of a fault until everything gets on: the auditor's second, a restart on a busy machine, a retry after a
/// stream that the network lost (15 s at most).
pub(super) const RECOVERY: Duration = Duration::from_secs(40);
/// HBONE's port.
const HBONE: u16 = 15008;
/// Ports of the applications.
const ECHO: u16 = 8080;
/// See [`ECHO`].
const COUNT: u16 = 8083;
/// Lines of each log that a failed run shows.
const LAST_WORDS: usize = 60;

/// Where a service is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) echo: SocketAddr,
    pub(super) echo_6: SocketAddr,
    pub(super) count: SocketAddr,
}

/// Everything of a run but the callers.
pub(super) struct Stage {
    pub(super) mesh: Deployment,
    pub(super) wire: Capture,
    pub(super) client: Pod,
    /// On the client's node, without traffic of its own.
    pub(super) neighbour: Pod,
    pub(super) far: Target,
    pub(super) near: Target,
    /// A service with two endpoints, and the server of the one that may misbehave.
    pub(super) pool: SocketAddr,
    pub(super) fickle: Option<Server>,
    fickle_pod: Pod,
    _servers: Vec<Server>,
    pub(super) cluster: Cluster,
}

impl Stage {
    /// Builds it, and waits until the pods are captured for good.
    pub(super) fn build(flags: &SoakFlags) -> Result<Self> {
        let mut lab = Lab::builder();
        if let Some(directory) = &flags.keep {
            lab = lab.keep(directory.clone());
        }
        let mut cluster = Cluster::new(lab.build()?)?;
        let wire = Capture::start(cluster.lab().wire().name(), "node1", &[MARKER])?;
        cluster.namespace("shop", &[])?;
        cluster.set_namespace_label("shop", "weft.dev/mtls", Some("strict"))?;
        let mut pod = |name: &str, node| cluster.pod(PodPlan::new("shop", name, name, node));
        let (client, near, far, neighbour) = (pod("client", 1)?, pod("near", 1)?, pod("far", 2)?, pod("neighbour", 1)?);
        let mut member = |name: &str| cluster.pod(PodPlan::new("shop", "pool", name, 2));
        let (fickle_pod, steady) = (member("pool-1")?, member("pool-2")?);
        let mut servers = Vec::new();
        for pod in [&near, &far, &steady] {
            for (port, behaviour) in [(ECHO, Behaviour::Echo), (COUNT, Behaviour::Count)] {
                servers.push(Server::start(&pod.netns, SocketAddr::new("::".parse()?, port), behaviour)?);
            }
        }
        let (near, far) = (service(&mut cluster, "near")?, service(&mut cluster, "far")?);
        let (pool, _) = cluster.service(ServicePlan::new("shop", "pool", 80, ECHO))?.context("not headless")?;
        cluster.enrol("shop", true)?;
        let extra = Extra::words("", "--settle 100ms --audit-interval 1s", "--drain-deadline 5s");
        let mesh = Deployment::start_with(&cluster, &extra)?;
        let mut stage = Self {
            mesh,
            wire,
            client,
            neighbour,
            far,
            near,
            pool: SocketAddr::new(pool, 80),
            fickle: None,
            fickle_pod,
            _servers: servers,
            cluster,
        };
        stage.fickle = Some(stage.fickle_server(Behaviour::Echo)?);
        stage.wait_captured()?;
        stage.wire.forget();
        Ok(stage)
    }

    /// A server in the pod that may misbehave. The port of the one before may not be free at once.
    pub(super) fn fickle_server(&self, behaviour: Behaviour) -> Result<Server> {
        let address = SocketAddr::new("::".parse()?, ECHO);
        let start = || Server::start(&self.fickle_pod.netns, address, behaviour.clone());
        wait::eventually(PATIENCE, "the port of the endpoint", start)
    }

    /// Every pod is wholly captured, says the capture half of its node.
    pub(super) fn wait_captured(&self) -> Result<()> {
        wait::eventually(RECOVERY, "all pods captured", || {
            for (node, pods) in [(1, 3), (2, 3)] {
                let path = self.cluster.lab().directory().join(format!("weft/node{node}/capture-status.json"));
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let value: serde_json::Value = serde_json::from_str(&text)?;
                let states = value["pods"].as_object().context("pods")?.values();
                let captured = states.filter(|pod| pod["state"] == "captured").count();
                ensure!(captured == pods, "node{node}: {value}");
            }
            anyhow::Ok(())
        })
    }

    /// What travelled between the nodes since the last call: no marker, no packet but to HBONE's port and to the control plane,
    /// and no byte there that is not TLS. A busy machine may lose frames of a bulk transfer before they are looked at; what was
    /// looked at counts.
    pub(super) fn nothing_in_plain(&self) -> Result<()> {
        let report = self.wire.report();
        self.wire.forget();
        report.assert_no_marker()?;
        let allowed = |flow: &Flow| [HBONE, SERVER_PORT].iter().any(|port| flow.has_port(*port)) && !flow.not_tls();
        let offences: Vec<String> =
            report.flows.iter().filter(|flow| !allowed(flow)).map(ToString::to_string).collect();
        ensure!(offences.is_empty(), "not only TLS on {HBONE} and {SERVER_PORT}: {offences:#?}");
        ensure!(report.on_port(HBONE).iter().any(|flow| flow.bytes > 0), "nothing on {HBONE}");
        Ok(())
    }

    /// What the programs said last, but for the lines on connections.
    pub(super) fn last_words(&self) -> String {
        let mut text = String::new();
        let agents = self.mesh.agents.iter().flat_map(|agent| [&agent.capture, &agent.proxy]);
        for daemon in agents.chain([&self.mesh.server]) {
            let output = daemon.process().output();
            let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("access ")).collect();
            let _ = writeln!(text, "--- end of {} ---", daemon.process().log().display());
            for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

fn service(cluster: &mut Cluster, app: &str) -> Result<Target> {
    let mut plan = ServicePlan::new("shop", app, 80, ECHO);
    plan.ports.push((83, COUNT));
    let (v4, v6) = cluster.service(plan)?.context("not headless")?;
    let at = |address: IpAddr, port| SocketAddr::new(address, port);
    Ok(Target { echo: at(v4, 80), echo_6: at(v6, 80), count: at(v4, 83) })
}
