//! The command line.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::node::{control, enter, init};
use crate::plan::{Node, Plan, ProxyMode};
use crate::{control_plane, kubectl, parts, up};

/// A real Kubernetes cluster on this machine, for tests: containerd, kubelet and kube-proxy in nodes made of namespaces.
///
/// Examples:
///   weft-cluster up                          three nodes; prints the path of the kubeconfig
///   weft-cluster kubectl get pods -A         kubectl of the same version
///   weft-cluster load target/images/*.tar    image archives into all nodes
///   weft-cluster kill node2                  a power cut; `start node2` boots it again
///   weft-cluster down                        leaves nothing but the programs that were built
#[derive(Debug, Parser)]
#[command(name = "weft-cluster", version, verbatim_doc_comment)]
struct Arguments {
    /// Where programs, images and clusters are kept.
    #[arg(long, global = true, env = "WEFT_CLUSTER_FOLDER", default_value = "target/cluster", value_name = "PATH")]
    folder: PathBuf,
    /// The cluster's name.
    #[arg(long, global = true, default_value = "weft")]
    name: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds the programs that clusters are made of (minutes the first time) and Helm, no more.
    Build,
    /// Writes the image that pods of tests are made of, without a cluster, and prints its path.
    Toolbox,
    /// Brings a cluster up, or what is missing of it, and prints the path of its kubeconfig.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=200))]
        nodes: u8,
        /// How kube-proxy works.
        #[arg(long, value_enum, default_value = "iptables")]
        proxy: ProxyMode,
        /// IPv6 beside IPv4.
        #[arg(long)]
        dual_stack: bool,
        /// Which of ten address ranges, so that clusters do not meet.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
        index: u8,
    },
    /// Ends a cluster and removes all that it left.
    Down,
    /// The path of the kubeconfig.
    Kubeconfig,
    /// kubectl as the administrator.
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Kubectl {
        /// What to give kubectl.
        arguments: Vec<String>,
    },
    /// Puts image archives into all nodes.
    Load {
        /// OCI or docker archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Ends a node at once, as a power cut does.
    Kill {
        /// For example node2.
        node: String,
    },
    /// Ends a part of the control plane: etcd, apiserver, controller-manager or scheduler. `resume` starts it again.
    Stop {
        /// Which.
        #[arg(value_parser = control_plane::PARTS)]
        part: String,
    },
    /// Starts again what was stopped, in the shape in which the cluster was asked for.
    Resume,
    /// Boots a node that was killed, and waits until it is Ready.
    Start {
        /// For example node2.
        node: String,
    },
    /// Runs a command inside a node.
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Exec {
        /// For example node2.
        node: String,
        /// The command.
        #[arg(required = true)]
        command: Vec<String>,
    },
    #[command(hide = true)]
    NodeEnter { node: String },
    #[command(hide = true)]
    NodeInit { node: String },
}

/// Reads the command line and does it.
///
/// # Errors
/// What cannot be done.
pub fn run() -> Result<()> {
    let Arguments { folder, name, command } = Arguments::parse();
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let folder = folder.canonicalize()?;
    let plan = || read(&folder, &name);
    let say = |text: &str| eprintln!("cluster: {text}");
    match command {
        Verb::Build => parts::build(&folder, &[&parts::CLUSTER[..], &parts::TOOLS].concat(), &say),
        Verb::Toolbox => print(&parts::image(&folder, "toolbox")?.display().to_string()),
        Verb::Up { nodes, proxy, dual_stack, index } => {
            let asked = Plan { name: name.clone(), index, nodes, proxy, dual_stack, folder: folder.clone() };
            if let Ok(there) = plan()
                && there != asked
            {
                bail!(
                    "'{name}' is there and was asked for otherwise: `weft-cluster down` first, or give another --name and --index"
                );
            }
            up::up(&asked, &say)?;
            print(&asked.kubeconfig().display().to_string())
        }
        Verb::Down => match plan() {
            Ok(plan) => up::down(&plan),
            Err(_) => {
                say(&format!("there is no cluster '{name}'"));
                Ok(())
            }
        },
        Verb::Kubeconfig => print(&plan()?.kubeconfig().display().to_string()),
        Verb::Kubectl { arguments } => Err(kubectl::command(&plan()?).args(arguments).exec().into()),
        Verb::Load { archives } => {
            let plan = plan()?;
            let nodes = plan.all_nodes();
            archives
                .iter()
                .try_for_each(|archive| nodes.iter().try_for_each(|node| control::load(&plan, node, archive)))
        }
        Verb::Stop { part } => control_plane::process(&plan()?, &part).end(Signal::SIGTERM),
        Verb::Resume => up::up(&plan()?, &say),
        Verb::Kill { node } => with_node(&plan()?, &node, control::kill),
        Verb::Start { node } => with_node(&plan()?, &node, |plan, node| {
            control::start(plan, node)?;
            up::wait_ready(plan, node)
        }),
        Verb::Exec { node, command } => {
            with_node(&plan()?, &node, |plan, node| Err(control::inside(plan, node)?.args(command).exec().into()))
        }
        Verb::NodeEnter { node } => {
            with_node(&plan()?, &node, |plan, node| print(&enter::start_init(plan, node)?.to_string()))
        }
        Verb::NodeInit { node } => with_node(&plan()?, &node, init::run),
    }
}

fn read(folder: &Path, name: &str) -> Result<Plan> {
    let file = Plan::file(folder, name);
    let text =
        fs::read_to_string(&file).with_context(|| format!("there is no cluster '{name}' in {}", folder.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn with_node(plan: &Plan, name: &str, act: impl FnOnce(&Plan, &Node) -> Result<()>) -> Result<()> {
    let Some(node) = plan.node_called(name) else {
        let names: Vec<String> = plan.all_nodes().into_iter().map(|node| node.name).collect();
        bail!("there is no node '{name}'; expected one of {}", names.join(", "));
    };
    act(plan, &node)
}

/// To standard output, where scripts read it.
fn print(line: &str) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
