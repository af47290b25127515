//! The command line, with help and examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cluster::options::{CheckOptions, EnrollOptions, InstallOptions, RotateOptions, UninstallOptions};
pub use crate::format::Format;
use crate::programs::options::ProgramOptions;

/// Weft, the sidecarless service mesh: look at what runs, and find out why.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    after_help = "Exit codes: 0 all well; 1 something wrong was found (lint, certs, config, check); 2 no answer, or a wrong command line.\n\nExamples:\n  weft install                  into the cluster of your kubeconfig\n  weft enroll shop --wait       the namespace shop is in the mesh\n  weft pods -A                  who is in the mesh, cluster-wide\n  weft check                    what is wrong, on which node, with which pod, and what to do\n  weft pods -n shop             what each node's agent says of its own pods\n  weft connections --denied     what was refused lately, and by which policy\n  weft certs --node node-1      of one node's agent (--pod NAMESPACE/POD: of that pod's node)\n  weft config -a HOST:PORT      one program by its address, without a cluster\n  weft why policy-not-allowed   what a reason code means and what to do\n  weft lint ./manifests         check files before applying them"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const INSTALL_EXAMPLES: &str = "Examples:
  weft install --images registry.example/weft --tag 0.1.0
  weft install --set mtls=strict --set xdsServer.replicas=3
  weft install --set cni.programs=/home/kubernetes/bin     where the nodes have CNI elsewhere
  weft install --values mesh.yaml --dry-run                print what would be applied
  weft upgrade --tag 0.2.0                                 what was set stays set";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install Weft in a Kubernetes cluster, and wait until it is ready.
    #[command(after_help = INSTALL_EXAMPLES)]
    Install(InstallOptions),
    /// What is installed becomes this version; what was set stays set, whoever set it.
    #[command(after_help = INSTALL_EXAMPLES)]
    Upgrade(InstallOptions),
    /// Take Weft out of a cluster; pods that are in the mesh leave it first.
    Uninstall(UninstallOptions),
    /// Take a namespace into the mesh.
    Enroll(EnrollOptions),
    /// Take a namespace out of the mesh.
    Unenroll(EnrollOptions),
    /// What is wrong in a cluster, and how to mend it; with --pre: whether it can hold Weft.
    ///
    /// Looks at the control plane, the root, every node with its agent, and every pod that is not as wanted. The exit code is 1 where
    /// something is an error. With -o json each finding has level (ok, note, warning, error), where, finding and fix.
    Check(CheckOptions),
    /// Pods: identity, node, whether they are in the mesh. Each agent says its own; with -A: as Kubernetes has them.
    Pods(PodsOptions),
    /// Services: addresses, ports, endpoints; as the control plane has them, or a node's agent.
    Services(ShowOptions),
    /// Policies in force, and their rules in words; as the control plane has them, or a node's agent.
    Policies(ShowOptions),
    /// Live connections, or what was refused lately: of all agents, of a node's or of a pod's.
    #[command(
        after_help = "Examples:\n  weft connections --pod shop/web-1          that pod's, asked of its node's agent\n  weft connections --node node-1 --denied    what that node's agent refused lately"
    )]
    Connections(ConnectionOptions),
    /// Certificates of workloads: of all agents or of a node's. `rotate`: a new root for the mesh.
    Certs(CertsOptions),
    /// What is wanted, and what is in force: of each replica of the control plane, or of a node's agent.
    Config(ShowOptions),
    /// What a reason code means, and what to do.
    Why(WhyOptions),
    /// Check files with Kubernetes YAML offline: exit code 1 when something is wrong.
    Lint(LintOptions),
}

/// Options of every command that asks a running program.
#[derive(Debug, Clone, Args)]
pub struct ShowOptions {
    /// Who is asked.
    #[command(flatten)]
    pub programs: ProgramOptions,
    /// Only this namespace.
    #[arg(long, short = 'n')]
    pub namespace: Option<String>,
    /// How to print.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// Options of `weft pods`.
#[derive(Debug, Clone, Args)]
pub struct PodsOptions {
    /// As Kubernetes has them, labels and conditions, in all namespaces: also the pods that no agent knows of.
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Shared options.
    #[command(flatten)]
    pub show: ShowOptions,
}

/// Options of `weft certs`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CertsOptions {
    /// Rather than the certificates of an agent.
    #[command(subcommand)]
    pub action: Option<CertsCommand>,
    /// Shared options.
    #[command(flatten)]
    pub show: ShowOptions,
}

/// What `weft certs` does beside showing.
#[derive(Debug, Clone, Subcommand)]
pub enum CertsCommand {
    /// Give a Kubernetes mesh a new root, without a call that fails; or say where that is.
    ///
    /// The control plane takes the steps by itself: first every node learns the new root, then it signs, and at last the old one is
    /// forgotten. Each of the two steps takes the longest life of a certificate and a quarter.
    Rotate(RotateOptions),
}

/// Options of `weft connections`.
#[derive(Debug, Clone, Args)]
pub struct ConnectionOptions {
    /// Shared options.
    #[command(flatten)]
    pub show: ShowOptions,
    /// What was refused lately instead of what is live.
    #[arg(long)]
    pub denied: bool,
}

/// Options of `weft why`.
#[derive(Debug, Clone, Args)]
pub struct WhyOptions {
    /// The code, for example `policy-denied`; none lists all.
    pub code: Option<String>,
    /// How to print.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// Options of `weft lint`.
#[derive(Debug, Clone, Args)]
pub struct LintOptions {
    /// A directory (with its sub-folders) or a file.
    pub path: PathBuf,
    /// How to print.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}
