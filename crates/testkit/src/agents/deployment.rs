//! A whole mesh on a laboratory: one control plane, and on each node the two halves of the agent.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::binaries::binary;
use super::daemon::{Daemon, DaemonPlan};
use super::flags::{AgentFlags, SERVER_ADMIN, ServerFlags};
use crate::mesh::Cluster;
use crate::netns::Node;

/// The user that the proxy half becomes: nobody on every distribution that we know.
const NOBODY: u32 = 65534;

/// The two halves on one node.
#[derive(Debug)]
pub struct Proxied {
    /// The half with privileges.
    pub capture: Daemon,
    /// The half that meets the network: no capability, and as real root user nobody.
    pub proxy: Daemon,
}

impl Proxied {
    /// Waits until the proxy half is ready, which it is only with its other half.
    ///
    /// # Errors
    /// As [`Daemon::wait_ready`]; with the words of a capture half that has ended.
    pub fn wait_ready(&mut self) -> Result<()> {
        let capture = self.capture.process_mut();
        self.proxy.wait_ready().map_err(|error| match capture.ended() {
            Some(status) => error.context(format!("the capture half ended with {status}\n{}", capture.tail())),
            None => error,
        })
    }
}

/// Words added to the command lines.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Of `weft-xds-server`.
    pub server: Vec<String>,
    /// Of every `weft-node-agent capture`.
    pub capture: Vec<String>,
    /// Of every `weft-node-agent proxy`.
    pub proxy: Vec<String>,
    /// Words before the command line of every `weft-node-agent proxy`, such as `prlimit --nofile=400`.
    pub proxy_wrapper: Vec<String>,
}

impl Extra {
    /// Cuts lines of words at their spaces.
    #[must_use]
    pub fn words(server: &str, capture: &str, proxy: &str) -> Self {
        let [server, capture, proxy] =
            [server, capture, proxy].map(|line| line.split_whitespace().map(str::to_owned).collect());
        Self { server, capture, proxy, proxy_wrapper: Vec::new() }
    }
}

/// The programs that run.
#[derive(Debug)]
pub struct Deployment {
    /// `weft-xds-server` in the control namespace.
    pub server: Daemon,
    /// One per node, in the order of the nodes.
    pub agents: Vec<Proxied>,
    extra: Extra,
    successors: u16,
}

impl Deployment {
    /// Starts everything and waits until all are ready.
    ///
    /// # Errors
    /// A program is missing, ended or is not ready: with the tail of its log.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_with(cluster, &Extra::default())
    }

    /// As [`Deployment::start`], with more words on the command lines.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub fn start_with(cluster: &Cluster, extra: &Extra) -> Result<Self> {
        let every: Vec<u8> = cluster.lab().nodes().iter().map(|node| node.number).collect();
        Self::start_on(cluster, &every, extra)
    }

    /// As [`Deployment::start_with`], with agents on the nodes of these numbers only: the others are for somebody else's.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub fn start_on(cluster: &Cluster, nodes: &[u8], extra: &Extra) -> Result<Self> {
        let base = base(cluster);
        let state = base.join("server");
        fs::create_dir_all(&state)?;
        let tokens = write_tokens(cluster, &base)?;
        let flags = ServerFlags { source: cluster.directory().root().to_owned(), state: state.clone(), tokens };
        let mut server = Daemon::start(DaemonPlan {
            name: "weft-xds-server".into(),
            netns: cluster.lab().control().name().to_owned(),
            command: command_line("weft-xds-server", flags.arguments(), &extra.server)?,
            environment: Vec::new(),
            health: Some(SocketAddr::from(([127, 0, 0, 1], SERVER_ADMIN))),
            logs: cluster.lab().directory().join("logs"),
        })?;
        server.wait_ready()?;
        let mut agents = Vec::new();
        for node in cluster.lab().nodes().iter().filter(|node| nodes.contains(&node.number)) {
            agents.push(start_agent(cluster, &base, node, extra)?);
        }
        for agent in &mut agents {
            agent.wait_ready()?;
        }
        Ok(Self { server, agents, extra: extra.clone(), successors: 0 })
    }

    /// Starts one more proxy half beside the one of node `number`, as an upgrade does: with other ports for its pages. It is not
    /// waited for; whoever puts it into the place of the old one ends that one.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn successor(&mut self, cluster: &Cluster, number: u8) -> Result<Daemon> {
        /// Pages of successors have ports from here on, a hundred for each.
        const FIRST_PORT: u16 = 16_000;
        let base_port = FIRST_PORT + 100 * self.successors;
        self.successors += 1;
        let mut extra = self.extra.clone();
        let health = SocketAddr::from(([127, 0, 0, 1], base_port + 21));
        let pages = [("--admin", 0), ("--metrics", 20), ("--health", 21)];
        let words = pages.map(|(flag, port)| [flag.to_owned(), format!("127.0.0.1:{}", base_port + port)]);
        extra.proxy.extend(words.into_iter().flatten());
        let plans = AgentPlans::new(cluster, &base(cluster), cluster.lab().node(number), &extra)?;
        let name = format!("{}-successor{}", plans.proxy.name, self.successors);
        Daemon::start(DaemonPlan { name, health: Some(health), ..plans.proxy })
    }

    /// The file with the token of a node, for an agent that is not ours.
    #[must_use]
    pub fn token_file(cluster: &Cluster, node: &str) -> PathBuf {
        base(cluster).join(node).join("token")
    }

    /// The root certificate of the control plane, there once it is ready.
    #[must_use]
    pub fn root_certificate(cluster: &Cluster) -> PathBuf {
        ServerFlags::root_certificate(&base(cluster).join("server"))
    }
}

fn base(cluster: &Cluster) -> PathBuf {
    cluster.lab().directory().join("weft")
}

fn start_agent(cluster: &Cluster, base: &Path, node: &Node, extra: &Extra) -> Result<Proxied> {
    let plans = AgentPlans::new(cluster, base, node, extra)?;
    Ok(Proxied { capture: Daemon::start(plans.capture)?, proxy: Daemon::start(plans.proxy)? })
}

/// How to start the two halves of a node.
struct AgentPlans {
    capture: DaemonPlan,
    proxy: DaemonPlan,
}

impl AgentPlans {
    fn new(cluster: &Cluster, base: &Path, node: &Node, extra: &Extra) -> Result<Self> {
        let (node, netns) = (&node.name, node.netns());
        let directory = base.join(node);
        fs::create_dir_all(&directory)?;
        let flags = AgentFlags {
            node: node.clone(),
            source: cluster.directory().root().to_owned(),
            handover: directory.join("handover.sock"),
            proxy_user: real_root().then_some(NOBODY),
            token: directory.join("token"),
            root: ServerFlags::root_certificate(&base.join("server")),
        };
        let plan = |half: &str, command, health| DaemonPlan {
            name: format!("{half}-{node}"),
            netns: netns.to_owned(),
            command,
            environment: Vec::new(),
            health,
            logs: cluster.lab().directory().join("logs"),
        };
        let mut proxy: Vec<OsString> = extra.proxy_wrapper.iter().map(OsString::from).collect();
        proxy.extend(command_line("weft-node-agent", flags.proxy(), &extra.proxy)?);
        Ok(Self {
            capture: plan("capture", command_line("weft-node-agent", flags.capture(), &extra.capture)?, None),
            proxy: plan("proxy", proxy, Some(AgentFlags::health())),
        })
    }
}

/// One random-looking token per node; the proxy half reads its own, which user nobody must be able to.
fn write_tokens(cluster: &Cluster, base: &Path) -> Result<PathBuf> {
    let mut lines = "# node token\n".to_owned();
    for node in cluster.lab().nodes() {
        let token = format!("lab-token-of-{}-{}", node.name, std::process::id());
        lines.push_str(&format!("{} {token}\n", node.name));
        let file = base.join(&node.name).join("token");
        fs::create_dir_all(base.join(&node.name))?;
        fs::write(&file, token)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444))?;
    }
    let path = base.join("node-tokens");
    fs::write(&path, lines).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Root of the machine, not of a user namespace (which maps one user only, so nobody else can be become there).
fn real_root() -> bool {
    let every_user = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    every_user && Uid::effective().is_root()
}

fn command_line(program: &str, arguments: Vec<String>, extra: &[String]) -> Result<Vec<OsString>> {
    let mut words = vec![binary(program)?.into_os_string()];
    words.extend(arguments.iter().chain(extra).map(OsString::from));
    Ok(words)
}
