//! Options of the commands for a cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::format::Format;

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub struct ClusterOptions {
    /// The kubeconfig, if not $KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Its context, if not the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Options of `weft install` and `weft upgrade`.
#[derive(Debug, Clone, Args)]
pub struct InstallOptions {
    /// Shared options.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// What is set.
    #[command(flatten)]
    pub values: ValueOptions,
    /// Print the YAML (with -o json: a List of the objects), and do nothing. `install` asks no cluster for it; `upgrade` does, for
    /// the values that it has.
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait until everything is ready.
    #[arg(long, default_value = "3m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// How to print: json is one object in each line, steps and at last the outcome.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// `weft install` or `weft upgrade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Into a cluster that may have it already.
    Install,
    /// What is there.
    Upgrade,
}

/// What is set of an installation: the values of the Helm chart (manifests/helm/values.yaml), by the same names.
#[derive(Debug, Clone, Default, Args)]
pub struct ValueOptions {
    /// Where the images are (value images). At first localhost/weft.
    #[arg(long, value_name = "REGISTRY/PATH")]
    pub images: Option<String>,
    /// The images' tag (value tag), if not the version of this program.
    #[arg(long)]
    pub tag: Option<String>,
    /// A file of values, as for Helm. Of several, the last one is in force.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub values: Vec<PathBuf>,
    /// A single value, in YAML; goes before those of files. null: as the chart has it. Once for each.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// What is not given is as the chart has it. Else it stays as it is in the cluster, whoever set it.
    #[arg(long)]
    pub reset_values: bool,
}

/// Options of `weft uninstall`.
#[derive(Debug, Clone, Args)]
pub struct UninstallOptions {
    /// Shared options.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Also when namespaces are enrolled: they are taken out of the mesh first.
    #[arg(long)]
    pub unenroll: bool,
    /// Only what has to be done before the objects go: pods out of the mesh, and the agents and the CNI plugin off all nodes. For
    /// who takes the objects away by other means, as Helm's hook does.
    #[arg(long)]
    pub prepare: bool,
    /// How long to wait until everything is gone.
    #[arg(long, default_value = "3m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// How to print: json is one object in each line, steps and at last the outcome.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// Options of `weft enroll` and `weft unenroll`.
#[derive(Debug, Clone, Args)]
pub struct EnrollOptions {
    /// Shared options.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// The namespace.
    pub namespace: String,
    /// Wait until every running pod is in the mesh (or out of it).
    #[arg(long)]
    pub wait: bool,
    /// How long.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// How to print: json is one object in each line, steps and at last the outcome.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// Options of `weft check`.
#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// Shared options.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Before installing: whether this cluster can hold Weft.
    #[arg(long)]
    pub pre: bool,
    /// How to print.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// Options of `weft certs rotate`.
#[derive(Debug, Clone, Args)]
pub struct RotateOptions {
    /// Shared options.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Only say where a rotation is.
    #[arg(long)]
    pub status: bool,
    /// Wait until it is over, and say each step. It goes on without that, too.
    #[arg(long)]
    pub wait: bool,
    /// How long: a rotation takes two and a half hours where certificates live for one.
    #[arg(long, default_value = "4h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// How to print.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}
