//! Where crowds meet: the laboratory of the bench, with a neighbour, a stranger outside of the mesh, and an echo for whoever does
//! not read.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_testkit::mesh::PodPlan;
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Behaviour, Server as Echo};
use weft_testkit::wait;

use super::flags::SoakFlags;
use super::neighbour::{p99, times};
use super::stage::RECOVERY;
use crate::bench::account::resident;
use crate::bench::figure::{Peer, Scope};
use crate::bench::load::{ECHO, Server};
use crate::bench::place::{NAMESPACE, Place, Wishes, metric};

/// The port of the echo for whoever does not read.
const SLOW: u16 = 8090;
/// Bytes that the servers of the bench read at once from a stream; nobody here sends one.
const PIECE: usize = 64 << 10;
/// Requests of one measurement.
const REQUESTS: usize = 5_000;

/// The pods of the bench, and more.
pub(super) struct Hall {
    pub(super) place: Place,
    /// On the client's node, in the mesh.
    pub(super) neighbour: Pod,
    /// On the client's node, outside of the mesh, and a server outside of it on the other.
    stranger: Pod,
    outside: IpAddr,
    _outside: Server,
    /// In the mesh on the other node: whom only the neighbour calls.
    aside: SocketAddr,
    _aside: Server,
    /// An echo that nobody else calls.
    pub(super) slow: SocketAddr,
    _slow: Echo,
}

/// Which way an abuse goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Past,
    Through,
}

impl Hall {
    pub(super) fn build(flags: &SoakFlags) -> Result<Self> {
        let keep = flags.keep.as_ref().map(|directory| directory.join("crowd"));
        let mut place = Place::build(Peer::Weft, &Wishes { keep, piece: PIECE, ..Wishes::default() })?;
        let cluster = &mut place.cluster;
        let neighbour = cluster.pod(PodPlan::new(NAMESPACE, "neighbour", "neighbour-1", 1))?;
        let quiet = cluster.pod(PodPlan::new(NAMESPACE, "slow", "slow-1", 2))?;
        let aside = cluster.pod(PodPlan::new(NAMESPACE, "aside", "aside-1", 2))?;
        cluster.namespace("outside", &[])?;
        let mut pod = |name: &str, node| cluster.pod(PodPlan::new("outside", name, name, node));
        let (stranger, hermit) = (pod("stranger", 1)?, pod("hermit", 2)?);
        let server = Server::start(&hermit.netns, PIECE)?;
        let server_aside = Server::start(&aside.netns, PIECE)?;
        let slow_server = Echo::start(&quiet.netns, SocketAddr::new("::".parse()?, SLOW), Behaviour::Echo)?;
        let hall = Self {
            place,
            neighbour,
            stranger,
            outside: hermit.v4.into(),
            _outside: server,
            aside: SocketAddr::new(aside.v4.into(), ECHO),
            _aside: server_aside,
            slow: SocketAddr::new(quiet.v4.into(), SLOW),
            _slow: slow_server,
        };
        hall.wait_encrypted()?;
        Ok(hall)
    }

    /// The neighbour's calls, and those to the slow server, are carried by the mesh on both sides.
    fn wait_encrypted(&self) -> Result<()> {
        let secured = |words: &[&str]| {
            let text = self.place.metrics(1)?;
            anyhow::Ok(metric(&text, "istio_tcp_connections_opened_total", words))
        };
        for (app, to) in [("neighbour", self.echo()), ("neighbour", self.aside), ("client", self.slow)] {
            let pod = if app == "neighbour" { &self.neighbour } else { &self.place.client };
            let name = format!("source_workload=\"{app}");
            let words = ["reporter=\"source\"", "connection_security_policy=\"mutual_tls\"", name.as_str()];
            wait::eventually(RECOVERY, &format!("calls of {app} through the mesh"), || {
                let before = secured(&words)?;
                times(pod, to, |count| count > 0)?;
                ensure!(secured(&words)? > before, "not through the mesh");
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }

    pub(super) fn far(&self) -> IpAddr {
        self.place.server(Scope::TwoNodes).1
    }

    pub(super) fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.far(), ECHO)
    }

    pub(super) fn abuser(&self, way: Way) -> (&Pod, IpAddr) {
        match way {
            Way::Past => (&self.stranger, self.outside),
            Way::Through => (&self.place.client, self.far()),
        }
    }

    pub(super) fn neighbours_p99(&self) -> Result<Duration> {
        self.p99_of(&self.neighbour, self.echo())
    }

    /// The same at a server that no abuser calls: nothing but the mesh and the processors is shared.
    pub(super) fn neighbours_p99_aside(&self) -> Result<Duration> {
        self.p99_of(&self.neighbour, self.aside)
    }

    /// Of one request after the other on one connection.
    pub(super) fn p99_of(&self, pod: &Pod, to: SocketAddr) -> Result<Duration> {
        Ok(p99(times(pod, to, |count| count >= REQUESTS)?))
    }

    pub(super) fn memory(&self) -> Result<u64> {
        resident(&self.place.agents(None))
    }

    /// Connections that a pod may keep to another one of its node: each takes two descriptors of the agent, and a pod with many gets
    /// none of the last quarter.
    pub(super) fn on_one_node(&self) -> Result<(usize, f64)> {
        let descriptors = metric(&self.place.metrics(1)?, "process_max_fds", &[]);
        Ok((((descriptors / 8.0 * 3.0) as usize).saturating_sub(200), descriptors))
    }
}
