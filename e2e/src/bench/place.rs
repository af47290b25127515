//! One peer's laboratory: two nodes, a client, a server on either node, and whoever carries the bytes. A laboratory of its
//! own for each peer: no rule, route, TIME_WAIT or port of one is met by another.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::{Daemon, Deployment, Extra, get_ok};
use weft_testkit::mesh::{Cluster, PodPlan};
use weft_testkit::netns::{Lab, Pod};
use weft_testkit::wait;

use super::figure::{Peer, Scope};
use super::load::{Exchange, REQUESTS, Server, one_exchange};
use crate::stock::{REDIRECTED, ZdsPod, ZdsServer, plan, redirect};

/// The namespace of all pods.
pub const NAMESPACE: &str = "bench";
/// From the start of the programs to tunnels between all pods: about 2 s.
const MESHED: Duration = Duration::from_secs(30);
/// Where either agent tells its metrics.
const METRICS: u16 = 15020;
/// After a load the connections are gone within milliseconds.
const ENDED: Duration = Duration::from_secs(10);

/// A peer's laboratory; dropped in this order.
pub struct Place {
    /// Who carries.
    pub peer: Peer,
    stock: Vec<Daemon>,
    /// Weft's programs; the control plane alone under stock neighbours.
    pub mesh: Option<Deployment>,
    zds_servers: Vec<ZdsServer>,
    far_server: Server,
    near_server: Server,
    far: Pod,
    near: Pod,
    /// Where the load comes from, on node 1.
    pub client: Pod,
    /// Lab and objects.
    pub cluster: Cluster,
}

/// What is special about a place.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Words and environment for Weft's programs.
    pub extra: Extra,
    /// The stock program.
    pub ztunnel: Option<PathBuf>,
    /// Where logs and data stay.
    pub keep: Option<PathBuf>,
    /// Bytes that servers read at once in bulk.
    pub piece: usize,
}

impl Place {
    /// Builds the laboratory, starts the peer in it, and waits until its connections are carried as they should be.
    ///
    /// # Errors
    /// A program is missing or does not come up.
    pub fn build(peer: Peer, wishes: &Wishes) -> Result<Self> {
        let mut builder = Lab::builder().nodes(2);
        if let Some(directory) = &wishes.keep {
            builder = builder.keep(directory.clone());
        }
        let mut cluster = Cluster::new(builder.build()?)?;
        cluster.namespace(NAMESPACE, &[])?;
        cluster.enrol(NAMESPACE, peer != Peer::Direct)?;
        let mut pod = |app: &str, node| {
            let mut plan = PodPlan::new(NAMESPACE, app, &format!("{app}-1"), node);
            if peer == Peer::Ztunnel {
                plan.annotations.push((REDIRECTED.0.to_owned(), REDIRECTED.1.to_owned()));
            }
            cluster.pod(plan)
        };
        let (client, near, far) = (pod("client", 1)?, pod("near", 1)?, pod("far", 2)?);
        let (near_server, far_server) =
            (Server::start(&near.netns, wishes.piece)?, Server::start(&far.netns, wishes.piece)?);
        let mut place = Self {
            peer,
            stock: Vec::new(),
            mesh: None,
            zds_servers: Vec::new(),
            far_server,
            near_server,
            far,
            near,
            client,
            cluster,
        };
        match peer {
            Peer::Direct => {}
            Peer::Weft => place.mesh = Some(Deployment::start_with(&place.cluster, &wishes.extra)?),
            Peer::Ztunnel => place.start_stock(wishes)?,
        }
        place.wait_carried()?;
        Ok(place)
    }

    /// Our control plane, and a stock ztunnel on either node.
    fn start_stock(&mut self, wishes: &Wishes) -> Result<()> {
        let program = wishes.ztunnel.clone().context("no stock program is named")?;
        for pod in [&self.client, &self.near, &self.far] {
            redirect(pod)?;
        }
        self.mesh = Some(Deployment::start_on(&self.cluster, &[], &Extra::default())?);
        for (node, pods) in [(1, vec![&self.client, &self.near]), (2, vec![&self.far])] {
            let socket = self.cluster.lab().directory().join(format!("zds-{node}.sock"));
            let zds = ZdsServer::start(&socket, pods.into_iter().map(zds_pod).collect())?;
            self.stock.push(Daemon::start(plan(&self.cluster, node, &zds, (program.clone(), "info")))?);
            self.zds_servers.push(zds);
        }
        self.stock.iter_mut().try_for_each(Daemon::wait_ready)
    }

    /// The server of a scope, and where it is.
    #[must_use]
    pub fn server(&self, scope: Scope) -> (&Server, IpAddr) {
        match scope {
            Scope::SameNode => (&self.near_server, self.near.v4.into()),
            Scope::TwoNodes | Scope::Agent => (&self.far_server, self.far.v4.into()),
        }
    }

    /// Process ids of the agents of node `number`, or of all.
    #[must_use]
    pub fn agents(&self, number: Option<u8>) -> Vec<u32> {
        let ours = self.mesh.iter().flat_map(|mesh| &mesh.agents);
        let ours = ours.map(|agent| vec![agent.capture.process().pid(), agent.proxy.process().pid()]);
        let theirs = self.stock.iter().map(|ztunnel| vec![ztunnel.process().pid()]);
        // One of these is empty, and the other has an entry for each node in their order.
        let nodes = self.cluster.lab().nodes().iter().zip(ours.chain(theirs));
        nodes.filter(|(node, _)| number.is_none_or(|number| node.number == number)).flat_map(|(_, pids)| pids).collect()
    }

    /// Waits until no connection of an earlier load is left at a server.
    ///
    /// # Errors
    /// Some stay.
    pub fn wait_empty(&self) -> Result<()> {
        let open = || self.far_server.open() + self.near_server.open();
        wait::until(ENDED, "the end of the last load's connections", || open() == 0)
            .with_context(|| format!("{:?}: {} are open", self.peer, open()))
    }

    /// Text of the metrics of node `number`'s agent.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self, number: u8) -> Result<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], METRICS));
        get_ok(self.cluster.lab().node(number).netns(), address, "/metrics")
    }

    /// Connections of both kinds go through the peer, with mutual TLS where it is a mesh.
    fn wait_carried(&self) -> Result<()> {
        for scope in [Scope::TwoNodes, Scope::SameNode] {
            let (_, address) = self.server(scope);
            let target = SocketAddr::new(address, REQUESTS);
            wait::eventually(MESHED, "connections through the peer", || {
                let before = self.secured()?;
                self.client.run(|| one_exchange(target, &Exchange::last()))??;
                ensure!(self.peer == Peer::Direct || self.secured()? > before, "{target} is reached without the mesh");
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }

    /// Connections that node 1's agent carried with mutual TLS as the client's side.
    fn secured(&self) -> Result<f64> {
        if self.peer == Peer::Direct {
            return Ok(0.0);
        }
        let words = ["reporter=\"source\"", "connection_security_policy=\"mutual_tls\""];
        Ok(metric(&self.metrics(1)?, "istio_tcp_connections_opened_total", &words))
    }
}

fn zds_pod(pod: &Pod) -> ZdsPod {
    let account = pod.name.trim_end_matches("-1").to_owned();
    ZdsPod {
        uid: format!("uid-of-{}", pod.name),
        name: pod.name.clone(),
        namespace: NAMESPACE.to_owned(),
        account,
        netns: pod.netns.clone(),
    }
}

/// The sum of all rows of a metric whose labels hold all `words`.
#[must_use]
pub fn metric(text: &str, name: &str, words: &[&str]) -> f64 {
    let rows = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|row| row.starts_with(['{', ' ']));
    let rows = rows.filter(|row| words.iter().all(|word| row.contains(word)));
    rows.filter_map(|row| row.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_words() {
        let text = "# HELP a b\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total_more{x=\"1\"} 9\nb 5\n";
        assert_eq!(metric(text, "a_total", &["x=\"1\""]), 7.0);
        assert_eq!(metric(text, "a_total", &["x=\"1\"", "y=\"3\""]), 4.0);
        assert_eq!((metric(text, "b", &[]), metric(text, "c", &[])), (5.0, 0.0));
    }
}
