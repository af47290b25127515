//! Two nodes under one `weft-xds-server`: our agent on node 1, a stock ztunnel with a ZDS server of ours on node 2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_e2e::stock::{REDIRECTED, ZdsPod, ZdsServer, plan, redirect};
use weft_testkit::agents::{AGENT_ADMIN, Daemon, Deployment, Extra, SERVER_PORT};
use weft_testkit::mesh::{Cluster, PodPlan, ServicePlan};
use weft_testkit::netns::{Lab, Pod};
use weft_testkit::wait;
use weft_testkit::wire::{Capture, Flow, Protocol, Report};

/// From a change of the objects to its effect: well under a second; two busy cores may take longer.
pub(crate) const EFFECT: Duration = Duration::from_secs(15);
/// Where the servers of the tests listen.
pub(crate) const APP: u16 = 8080;
/// HBONE's port.
pub(crate) const HBONE: u16 = 15008;
/// What ztunnel logs: the connections that the tests look for are told at their beginning, too.
const LOG: &str = "info,access=debug";

/// Everything; dropped in this order.
pub(crate) struct Stage {
    pub(crate) wire: Capture,
    pub(crate) ztunnel: Daemon,
    pub(crate) mesh: Deployment,
    pub(crate) zds: ZdsServer,
    /// On node 1, captured by our agent.
    pub(crate) ours: Pod,
    /// On node 2, captured for ztunnel.
    pub(crate) theirs: Pod,
    pub(crate) cluster: Cluster,
}

impl Stage {
    /// Builds it and waits until either side knows the other's pods as HBONE.
    pub(crate) fn build(ztunnel: PathBuf) -> Result<Self> {
        let mut cluster = Cluster::new(Lab::builder().nodes(2).build()?)?;
        cluster.namespace("shop", &[])?;
        cluster.enrol("shop", true)?;
        let ours = cluster.pod(PodPlan::new("shop", "web", "web-1", 1))?;
        let theirs = cluster.pod(redirected("cart", "cart-1"))?;
        for app in ["web", "cart"] {
            cluster.service(ServicePlan::new("shop", app, 80, APP))?;
        }
        redirect(&theirs)?;
        let wire = Capture::start(cluster.lab().wire().name(), "node1", &[])?;
        let mesh = Deployment::start_on(&cluster, &[1], &Extra::default())?;
        let socket = cluster.lab().directory().join("zds.sock");
        let zds = ZdsServer::start(&socket, vec![zds_pod("cart", &theirs)])?;
        let mut ztunnel = Daemon::start(plan(&cluster, 2, &zds, (ztunnel, LOG)))?;
        ztunnel.wait_ready()?;
        let stage = Self { wire, ztunnel, mesh, zds, ours, theirs, cluster };
        stage.wait_known()?;
        stage.wire.forget();
        Ok(stage)
    }

    /// Adds a pod of app `app` on ztunnel's node.
    pub(crate) fn add_theirs(&mut self, app: &str, name: &str) -> Result<Pod> {
        let pod = self.cluster.pod(redirected(app, name))?;
        redirect(&pod)?;
        self.zds.add(zds_pod(app, &pod));
        Ok(pod)
    }

    /// Address of the application on one side's pod.
    pub(crate) fn app(pod: &Pod, v6: bool) -> SocketAddr {
        SocketAddr::new(pod.address(v6), APP)
    }

    /// ztunnel's view of the mesh.
    pub(crate) fn dump(&self) -> Result<String> {
        self.ztunnel.get(admin(), "/config_dump")
    }

    /// ztunnel's metrics.
    pub(crate) fn their_metrics(&self) -> Result<String> {
        self.ztunnel.get(SocketAddr::from(([127, 0, 0, 1], 15020)), "/metrics")
    }

    /// Our agent's metrics.
    pub(crate) fn our_metrics(&self) -> Result<String> {
        self.mesh.agents[0].proxy.get(SocketAddr::from(([127, 0, 0, 1], 15020)), "/metrics")
    }

    /// Waits until ztunnel has printed a line with all these words.
    pub(crate) fn wait_their_log(&self, words: &[&str]) -> Result<String> {
        wait_line(&self.ztunnel, words)
    }

    /// Waits until our agent has printed a line with all these words.
    pub(crate) fn wait_our_log(&self, words: &[&str]) -> Result<String> {
        wait_line(&self.mesh.agents[0].proxy, words)
    }

    /// What went between the nodes since the last call: nothing but TLS on 15008 (and the control plane's port).
    pub(crate) fn assert_only_hbone(&self) -> Result<Report> {
        let report = self.wire.report();
        report.assert_only_tls_on(&[HBONE, SERVER_PORT])?;
        ensure!(report.on_port(HBONE).iter().any(|flow| flow.bytes > 0), "no byte went through HBONE");
        Ok(report)
    }

    /// As [`Stage::assert_only_hbone`], also when the capture has lost frames of a bulk transfer on a busy machine: what it
    /// has seen is TLS, and on these ports.
    pub(crate) fn assert_nothing_but_hbone_seen(&self) -> Result<()> {
        let report = self.wire.report();
        let other = |flow: &&Flow| flow.not_tls() || !(flow.has_port(HBONE) || flow.has_port(SERVER_PORT));
        let strange: Vec<String> = report
            .flows
            .iter()
            .filter(|flow| flow.protocol == Protocol::Tcp)
            .filter(other)
            .map(Flow::to_string)
            .collect();
        ensure!(strange.is_empty(), "{strange:#?}");
        Ok(())
    }

    /// Waits until ztunnel knows our pod as HBONE and our agent can use theirs.
    pub(crate) fn wait_known(&self) -> Result<()> {
        wait::eventually(EFFECT, "HBONE for web-1 in ztunnel's view", || {
            let dump: serde_json::Value = serde_json::from_str(&self.dump()?)?;
            let workloads = dump["workloads"].as_array().cloned().unwrap_or_default();
            let known = workloads.iter().any(|it| it["name"] == "web-1" && it["protocol"] == "HBONE");
            ensure!(known, "{workloads:#?}");
            anyhow::Ok(())
        })
    }
}

fn wait_line(daemon: &Daemon, words: &[&str]) -> Result<String> {
    wait::eventually(EFFECT, &format!("a line with {words:?}"), || {
        let output = daemon.process().output();
        let found = output.lines().rev().find(|line| words.iter().all(|word| line.contains(word)));
        found.map(str::to_owned).ok_or_else(|| daemon.process().tail())
    })
}

fn redirected(app: &str, name: &str) -> PodPlan {
    let mut plan = PodPlan::new("shop", app, name, 2);
    plan.annotations.push((REDIRECTED.0.to_owned(), REDIRECTED.1.to_owned()));
    plan
}

/// Every address of a pod, on the port of its application.
pub(crate) fn anywhere() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, APP).into()
}

fn zds_pod(app: &str, pod: &Pod) -> ZdsPod {
    ZdsPod {
        uid: format!("uid-of-{}", pod.name),
        name: pod.name.clone(),
        namespace: "shop".to_owned(),
        account: app.to_owned(),
        netns: pod.netns.clone(),
    }
}

fn admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], AGENT_ADMIN))
}
