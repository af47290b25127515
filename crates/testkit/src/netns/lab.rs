//! The laboratory itself: wire, control, nodes, pods; made in some tens of milliseconds, gone when dropped.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::address::{CONTROL_V4, CONTROL_V6, node_address, pod_address};
use super::namespace::{Namespace, in_netns};
use super::pod::Pod;
use super::services::{ClusterService, JUMPS, rules};
use super::shell::{run, run_with_input};
use crate::process::Process;
use crate::wait;

/// A tmpfs that only this world sees (see `enter`): a killed test leaves no directory behind either.
const PRIVATE: &str = "/run";

/// TCP port 9 (discard): nothing in a lab listens there when it is made, so a working way answers with a refusal.
const NOBODY_LISTENS: u16 = 9;
/// One attempt, well above a round trip (0.1 ms) and below the kernel's first retransmission (1 s).
const ATTEMPT: Duration = Duration::from_millis(100);
/// Far longer than any link takes to come up.
const REACHABLE: Duration = Duration::from_secs(10);

/// A node: where agents run.
#[derive(Debug)]
pub struct Node {
    /// From 1; part of the addresses of its pods.
    pub number: u8,
    /// `node1`, `node2`, ...
    pub name: String,
    /// Address on the wire.
    pub v4: Ipv4Addr,
    /// Address on the wire.
    pub v6: Ipv6Addr,
    namespace: Namespace,
    next_pod: AtomicU8,
}

impl Node {
    /// Name of its network namespace.
    #[must_use]
    pub fn netns(&self) -> &str {
        self.namespace.name()
    }

    /// A command that runs on the node.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// Runs `work` on a thread on the node.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_netns(self.netns(), work)
    }
}

/// What to build.
#[derive(Debug, Default)]
pub struct LabBuilder {
    nodes: u8,
    keep: Option<PathBuf>,
}

impl LabBuilder {
    /// How many nodes (default 2).
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Puts logs, configuration and data into `directory` and leaves them there.
    #[must_use]
    pub fn keep(mut self, directory: PathBuf) -> Self {
        self.keep = Some(directory);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    /// Outside of private namespaces (call `enter_or_skip!` or `enter_program` first), or what `ip` says.
    pub fn build(self) -> Result<Lab> {
        static LABS: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("lab{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let (directory, temporary) = match self.keep {
            Some(directory) => {
                std::fs::create_dir_all(&directory)?;
                (directory.canonicalize()?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("weft-lab-").tempdir_in(PRIVATE)?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        // Programs that run as user nobody read their files in there.
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
        let wire = Namespace::create(&format!("{prefix}-wire"))?;
        wire.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
        let mut lab = Lab {
            control: Namespace::create(&format!("{prefix}-control"))?,
            nodes: Vec::new(),
            pods: Mutex::new(Vec::new()),
            wire,
            prefix,
            directory,
            _temporary: temporary,
        };
        lab.attach(&lab.control, "control", (CONTROL_V4, CONTROL_V6))?;
        for number in 1..=self.nodes {
            let node = lab.make_node(number)?;
            lab.nodes.push(node);
        }
        lab.route_between_nodes()?;
        for node in &lab.nodes {
            wait_reachable(node.netns(), &[CONTROL_V4.into(), CONTROL_V6.into()])?;
        }
        Ok(lab)
    }
}

/// Nodes, pods, wire and control. Everything is removed at drop, in any order of the programs inside.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Node>,
    pods: Mutex<Vec<(Pod, Namespace)>>,
    control: Namespace,
    wire: Namespace,
    prefix: String,
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

impl Lab {
    /// Two nodes unless told otherwise.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder { nodes: 2, keep: None }
    }

    /// Node `number`, from 1.
    ///
    /// # Panics
    /// No such node.
    #[must_use]
    pub fn node(&self, number: u8) -> &Node {
        self.nodes.iter().find(|node| node.number == number).expect("the lab has a node of that number")
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where the control plane runs: reachable from nodes and pods at 172.31.0.100 and fd00:172:31::100.
    #[must_use]
    pub fn control(&self) -> &Namespace {
        &self.control
    }

    /// The namespace with the bridge; its interfaces `node1`, `node2`, `control` are where captures listen.
    #[must_use]
    pub fn wire(&self) -> &Namespace {
        &self.wire
    }

    /// Directory for configuration, data and state of this lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a command with its log in the lab's directory (`logs/NAME.log`).
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn start(&self, name: &str, command: Command) -> Result<Process> {
        Process::start(&self.directory.join("logs"), name, command)
    }

    /// Makes a pod on node `node` (from 1).
    ///
    /// # Errors
    /// What `ip` says; a name used twice; a node with 253 pods.
    pub fn pod(&self, node: u8, name: &str) -> Result<Pod> {
        let node = self.node(node);
        let index = node.next_pod.fetch_add(1, Ordering::Relaxed);
        ensure!(index < 255, "{} is full", node.name);
        let (v4, v6) = pod_address(node.number, index);
        let (gateway4, gateway6) = pod_address(node.number, 1);
        let namespace = Namespace::create(&format!("{}-{name}", self.prefix))?;
        let netns = namespace.name().to_owned();
        let port = format!("pod{index}");
        // As the ptp plugin: the pod holds /32 and /128, the node answers on its own address of the pod network.
        node.namespace.ip(&format!(
            "link add {port} type veth peer name eth0 netns {netns}\nlink set {port} up\n\
             addr add {gateway4}/32 dev {port}\naddr add {gateway6}/128 dev {port} nodad\n\
             route add {v4}/32 dev {port}\nroute add {v6}/128 dev {port}\n"
        ))?;
        namespace.ip(&format!(
            "link set eth0 up\naddr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
             route add {gateway4} dev eth0 scope link\nroute add default via {gateway4} src {v4}\n\
             route add {gateway6} dev eth0\nroute add default via {gateway6} src {v6}\n"
        ))?;
        wait_reachable(&netns, &[node.v4.into(), node.v6.into()])?;
        let pod = Pod { node: node.number, name: name.to_owned(), netns, v4, v6 };
        self.pods.lock().expect("no panic while held").push((pod.clone(), namespace));
        Ok(pod)
    }

    /// Takes a pod away, as when it is deleted. Its processes are the caller's to stop.
    pub fn remove_pod(&self, pod: &Pod) {
        self.pods.lock().expect("no panic while held").retain(|(known, _)| known != pod);
        // The namespace may live on in a process that has it open; its way to the node must not.
        let port = format!("link delete pod{}\n", pod.v4.octets()[3]);
        let _ = self.node(pod.node).namespace.ip(&port);
    }

    /// Replaces all services of the cluster: DNAT in each node.
    ///
    /// # Errors
    /// What `iptables-restore` says.
    pub fn set_services(&self, services: &[ClusterService]) -> Result<()> {
        for node in &self.nodes {
            for (program, v6) in [("iptables-restore", false), ("ip6tables-restore", true)] {
                let mut command = node.command(program);
                run_with_input(command.arg("--noflush"), &rules(services, v6))
                    .with_context(|| format!("services of {}", node.name))?;
            }
        }
        Ok(())
    }

    /// Joins `namespace` to the bridge; its end there is `eth0`, the bridge's end is called `name`.
    fn attach(&self, namespace: &Namespace, name: &str, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<()> {
        self.wire.ip(&format!(
            "link add {name} type veth peer name eth0 netns {}\nlink set {name} master br0\nlink set {name} up\n",
            namespace.name()
        ))?;
        namespace.ip(&format!("link set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"))
    }

    fn make_node(&self, number: u8) -> Result<Node> {
        let name = format!("node{number}");
        let (v4, v6) = node_address(number);
        let namespace = Namespace::create(&format!("{}-{name}", self.prefix))?;
        self.attach(&namespace, &name, (v4, v6))?;
        // A default route, as every real node has one: without it a service address dies before any rule is asked.
        namespace.ip(&format!("route add default via {CONTROL_V4}\nroute add default via {CONTROL_V6}\n"))?;
        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let node = Node { number, name, v4, v6, namespace, next_pod: AtomicU8::new(2) };
        for family in ["iptables", "ip6tables"] {
            run_with_input(node.command(format!("{family}-restore")).arg("--noflush"), &jumps())?;
            run(node.command(family).args(["-t", "nat", "-S", "LAB_SERVICES"]))?;
        }
        Ok(node)
    }

    fn route_between_nodes(&self) -> Result<()> {
        let every = self.nodes.iter().map(|node| &node.namespace).chain([&self.control]);
        for namespace in every {
            let mut lines = String::new();
            for node in self.nodes.iter().filter(|node| node.netns() != namespace.name()) {
                let (net4, net6) = pod_address(node.number, 0);
                let _ = writeln!(lines, "route add {net4}/24 via {}\nroute add {net6}/64 via {}", node.v4, node.v6);
            }
            namespace.ip(&lines)?;
        }
        Ok(())
    }
}

/// Waits until packets go there and back: a new link carries nothing until the kernel's link watch has seen it, which
/// on a busy machine takes up to a second; a lab that is handed out must not lose anybody's first packet.
fn wait_reachable(netns: &str, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let target = SocketAddr::new(*address, NOBODY_LISTENS);
        wait::eventually(REACHABLE, &format!("the way from {netns} to {address}"), || {
            match in_netns(netns, || TcpStream::connect_timeout(&target, ATTEMPT))? {
                Err(error) if error.kind() != ErrorKind::ConnectionRefused => Err(error.into()),
                _ => anyhow::Ok(()),
            }
        })?;
    }
    Ok(())
}

/// Empty chains and the jumps to them, for a node that has just been made.
fn jumps() -> String {
    let mut text = String::new();
    for table in ["nat", "filter"] {
        let _ = writeln!(text, "*{table}");
        let mine = || JUMPS.iter().filter(|(of, _, _)| *of == table);
        let mut declared: Vec<&str> = mine().map(|(_, _, target)| *target).collect();
        declared.dedup();
        for target in declared {
            let _ = writeln!(text, ":{target} - [0:0]");
        }
        for (_, chain, target) in mine() {
            let _ = writeln!(text, "-A {chain} -j {target}");
        }
        text.push_str("COMMIT\n");
    }
    text
}
