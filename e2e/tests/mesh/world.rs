//! Two nodes, the pods that most tests need, and the programs of the mesh.
//!
//! | pod | namespace | node | in the mesh |
//! |---|---|---|---|
//! | client, near | shop | 1 | when `shop` is enrolled |
//! | far, other | shop | 2 | when `shop` is enrolled |
//! | stranger, hermit | outside | 1, 2 | never |

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use weft_model::view::{ConnectionRow, PodRow, PolicyRow};
use weft_testkit::agents::{self, AGENT_ADMIN, Deployment, Extra, SERVER_PORT};
use weft_testkit::mesh::{Cluster, PodPlan, ServicePlan};
use weft_testkit::netns::{Lab, Pod};
use weft_testkit::traffic::{Behaviour, Server};
use weft_testkit::wait;
use weft_testkit::wire::{Capture, Report};

use crate::ask::refused;

/// What must never be seen on the wire.
pub(crate) const MARKER: &str = "4111-MARKER";
/// HBONE's port.
pub(crate) const HBONE: u16 = 15008;
/// From a changed file to what follows from it; well under a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Ports of the applications in `near` and `far`; the services `near` and `far` have the same ports less 8000.
pub(crate) const ECHO: u16 = 8080;
pub(crate) const GREET: u16 = 8081;
pub(crate) const PEER: u16 = 8082;
pub(crate) const COUNT: u16 = 8083;
pub(crate) const RESET: u16 = 8084;
pub(crate) const CLOSE: u16 = 8085;
/// Nobody listens here.
pub(crate) const CLOSED: u16 = 8099;
/// Lines of each log that a failed test shows.
const LAST_WORDS: usize = 40;
const PORTS: [u16; 6] = [ECHO, GREET, PEER, COUNT, RESET, CLOSE];
/// What the server on port GREET says first.
pub(crate) const GREETING: &str = "220 welcome";

/// The servers of one pod.
pub(crate) struct Apps {
    servers: Vec<(u16, Server)>,
}

impl Apps {
    /// Starts one server per behaviour, on all addresses of the pod.
    pub(crate) fn start(pod: &Pod) -> Result<Self> {
        let behaviour = |port| match port {
            GREET => Behaviour::Greet(GREETING.to_owned()),
            PEER => Behaviour::PeerAddress,
            COUNT => Behaviour::Count,
            RESET => Behaviour::Reset,
            CLOSE => Behaviour::Close,
            _ => Behaviour::Echo,
        };
        let start =
            |port| Ok((port, Server::start(&pod.netns, SocketAddr::new("::".parse()?, port), behaviour(port))?));
        Ok(Self { servers: PORTS.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// The one on a port.
    pub(crate) fn at(&self, port: u16) -> &Server {
        &self.servers.iter().find(|(known, _)| *known == port).expect("a port of the table").1
    }
}

/// A service's virtual addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Virtual(IpAddr, IpAddr);

impl Virtual {
    pub(crate) fn at(self, v6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(if v6 { self.1 } else { self.0 }, port)
    }
}

/// The pods of the table above.
pub(crate) struct Cast {
    pub(crate) client: Pod,
    pub(crate) near: Pod,
    pub(crate) far: Pod,
    pub(crate) other: Pod,
    pub(crate) stranger: Pod,
    pub(crate) hermit: Pod,
    pub(crate) near_apps: Apps,
    pub(crate) far_apps: Apps,
    pub(crate) near_vip: Virtual,
    pub(crate) far_vip: Virtual,
}

/// Nodes, objects, programs, and a look at node1's wire.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) wire: Capture,
    mesh: Option<Deployment>,
}

impl World {
    /// Two nodes, the namespaces `shop` and `outside`, no programs yet.
    pub(crate) fn new() -> Result<Self> {
        let mut cluster = Cluster::new(Lab::builder().build()?)?;
        cluster.namespace("shop", &[])?;
        cluster.namespace("outside", &[])?;
        let wire = Capture::start(cluster.lab().wire().name(), "node1", &[MARKER])?;
        Ok(Self { cluster, wire, mesh: None })
    }

    /// The pods of the table.
    pub(crate) fn cast(&mut self) -> Result<Cast> {
        let client = self.pod("shop", "client", 1)?;
        let near = self.pod("shop", "near", 1)?;
        let far = self.pod("shop", "far", 2)?;
        let other = self.pod("shop", "other", 2)?;
        let stranger = self.pod("outside", "stranger", 1)?;
        let hermit = self.pod("outside", "hermit", 2)?;
        let (near_vip, far_vip) = (self.service("near")?, self.service("far")?);
        let (near_apps, far_apps) = (Apps::start(&near)?, Apps::start(&far)?);
        Ok(Cast { client, near, far, other, stranger, hermit, near_apps, far_apps, near_vip, far_vip })
    }

    /// The cast with `shop` in the mesh and everything in force.
    pub(crate) fn enrolled(extra: &Extra) -> Result<(Self, Cast)> {
        let mut world = Self::new()?;
        let cast = world.cast()?;
        world.cluster.enrol("shop", true)?;
        // Two seconds by default: enough for callers in a big mesh, too long for every test. `enrol` keeps the default.
        let mut extra = extra.clone();
        extra.capture.extend(["--settle", "100ms"].map(str::to_owned));
        world.start(&extra)?;
        world.wait_steady(&["client", "near", "far", "other"])?;
        Ok((world, cast))
    }

    /// A pod whose name is its app and its service account.
    pub(crate) fn pod(&mut self, namespace: &str, name: &str, node: u8) -> Result<Pod> {
        self.cluster.pod(PodPlan::new(namespace, name, name, node))
    }

    /// A service in `shop` with the ports of the table.
    pub(crate) fn service(&mut self, app: &str) -> Result<Virtual> {
        let mut plan = ServicePlan::new("shop", app, 80, ECHO);
        plan.ports = PORTS.into_iter().map(|port| (port - 8000, port)).collect();
        let (v4, v6) = self.cluster.service(plan)?.context("not headless")?;
        Ok(Virtual(v4, v6))
    }

    /// Starts the programs, and waits until they are ready.
    pub(crate) fn start(&mut self, extra: &Extra) -> Result<()> {
        self.mesh = Some(Deployment::start_with(&self.cluster, extra)?);
        Ok(())
    }

    /// As [`World::start`], with agents on these nodes only.
    pub(crate) fn start_on(&mut self, nodes: &[u8], extra: &Extra) -> Result<()> {
        self.mesh = Some(Deployment::start_on(&self.cluster, nodes, extra)?);
        Ok(())
    }

    /// The programs.
    pub(crate) fn mesh(&mut self) -> &mut Deployment {
        self.mesh.as_mut().expect("the programs were started")
    }

    /// One admin section of the agent of `node`.
    pub(crate) fn agent<T: DeserializeOwned>(&self, node: u8, section: &str) -> Result<T> {
        let address = SocketAddr::from(([127, 0, 0, 1], AGENT_ADMIN));
        let text = agents::get_ok(self.cluster.lab().node(node).netns(), address, &format!("/debug/{section}"))?;
        serde_json::from_str(&text).with_context(|| format!("{section}: {text}"))
    }

    /// What the capture half of `node` says of its pods: name and state.
    pub(crate) fn capture_states(&self, node: u8) -> Result<Vec<(String, String)>> {
        let path = self.cluster.lab().directory().join(format!("weft/node{node}/capture-status.json"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let pods = value["pods"].as_object().context("pods")?.values();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok(pods.map(|pod| (word(&pod["name"]), word(&pod["state"]))).collect())
    }

    /// As [`World::wait_in_mesh`], and until plaintext that comes in is captured, too: a pod that joins in permissive mode
    /// keeps that way open for two seconds, so that its callers learn first.
    pub(crate) fn wait_steady(&self, names: &[&str]) -> Result<()> {
        self.wait_in_mesh(names, true)?;
        wait::eventually(SOON, &format!("{names:?} wholly captured"), || {
            let states = [self.capture_states(1)?, self.capture_states(2)?].concat();
            for name in names {
                ensure!(states.iter().any(|(known, state)| known == name && state == "captured"), "{states:?}");
            }
            anyhow::Ok(())
        })
    }

    /// Waits until every node knows these pods as in the mesh (or not), and their own nodes serve them (or not).
    pub(crate) fn wait_in_mesh(&self, names: &[&str], inside: bool) -> Result<()> {
        wait::eventually(SOON * 2, &format!("{names:?} in the mesh: {inside}"), || {
            for node in [1, 2] {
                let rows: Vec<PodRow> = self.agent(node, "pods")?;
                for name in names {
                    let row = rows.iter().find(|row| row.name == *name).with_context(|| format!("{name} unknown"))?;
                    let here = row.captured_here.is_none_or(|captured| captured == inside);
                    ensure!(row.in_mesh == inside && here, "node {node}: {row:?}");
                }
            }
            anyhow::Ok(())
        })
    }

    /// Applies an AuthorizationPolicy of `shop` and waits until both agents have it, and its pods name it.
    pub(crate) fn apply_policy(&self, name: &str, spec: &str) -> Result<()> {
        self.write_policy(name, spec)?;
        self.wait_policy(name, true)
    }

    /// As [`World::apply_policy`], without waiting.
    pub(crate) fn write_policy(&self, name: &str, spec: &str) -> Result<()> {
        let head = "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata:";
        let text = format!("{head} {{name: {name}, namespace: shop}}\nspec:\n{spec}\n");
        self.cluster.directory().apply_yaml(&format!("policy-{name}"), &text)
    }

    /// Takes a policy away, and waits until no agent has it.
    pub(crate) fn remove_policy(&self, name: &str) -> Result<()> {
        self.cluster.directory().delete(&format!("policy-{name}"))?;
        self.wait_policy(name, false)
    }

    /// Waits until both agents have (or have not) the policy, for at least one workload.
    pub(crate) fn wait_policy(&self, name: &str, there: bool) -> Result<()> {
        wait::eventually(SOON, &format!("policy {name} in force: {there}"), || {
            for node in [1, 2] {
                let rows: Vec<PolicyRow> = self.agent(node, "policies")?;
                let known = rows.iter().any(|row| row.name == name && row.workloads > 0);
                ensure!(known == there, "node {node}: {rows:?}");
            }
            anyhow::Ok(())
        })
    }

    /// What the agent of `node` refused lately with `reason`.
    pub(crate) fn refusals(&self, node: u8, reason: &str) -> Result<Vec<ConnectionRow>> {
        let rows: Vec<ConnectionRow> = self.agent(node, "refusals")?;
        Ok(rows.into_iter().filter(|row| row.reason.as_deref() == Some(reason)).collect())
    }

    /// Asks until the connection is refused, and the agent of `node` names `reason` for it.
    pub(crate) fn wait_refused(&self, pod: &Pod, to: SocketAddr, (node, reason): (u8, &str)) -> Result<()> {
        wait::eventually(SOON, &format!("a refusal {reason} of {to} on node {node}"), || {
            refused(pod, to)?;
            let rows = self.refusals(node, reason)?;
            // At the server the address of a service has become that of an endpoint.
            let known = rows.iter().any(|row| {
                row.destination == to.to_string() || row.destination.ends_with(&format!(":{}", to.port() % 8000 + 8000))
            });
            ensure!(known, "{rows:?}");
            anyhow::Ok(())
        })
    }

    /// The sum of a counter of node `node` over all label sets that contain all of `labels` (`name="value"`).
    pub(crate) fn metric(&self, node: u8, name: &str, labels: &[&str]) -> Result<f64> {
        let address = SocketAddr::from(([127, 0, 0, 1], 15020));
        let text = agents::get_ok(self.cluster.lab().node(node).netns(), address, "/metrics")?;
        let lines =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let matching = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        Ok(matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// What was seen on node1's wire since the last `forget`: nothing but TLS on 15008 and to the control plane.
    pub(crate) fn assert_encrypted(&self) -> Result<Report> {
        let report = self.wire.report();
        report.assert_no_marker()?;
        report.assert_only_tls_on(&[HBONE, SERVER_PORT])?;
        ensure!(report.on_port(HBONE).iter().any(|flow| flow.bytes > 0), "nothing on port {HBONE}");
        Ok(report)
    }

    /// What the programs say of themselves: what the agents refused, and the rest without the access log.
    pub(crate) fn last_words(&self) -> String {
        let Some(mesh) = &self.mesh else { return String::new() };
        let mut text = String::new();
        let agents = mesh.agents.iter().flat_map(|agent| [&agent.capture, &agent.proxy]);
        for daemon in agents.chain([&mesh.server]) {
            let output = daemon.process().output();
            let lines: Vec<&str> = output.lines().filter(|line| !line.contains("verdict=ok")).collect();
            let _ = writeln!(text, "--- end of {} ---", daemon.process().log().display());
            for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}
