//! What can be set of an installation: the values of the Helm chart, by the same names and with the same effect (`cli/tests/chart.rs` holds
//! what both make of them against each other, object by object). All of it is pure but the reading of `--values` files.
//!
//! ```text
//! chart's values.yaml --+
//! kept: as they are in the cluster --+--> tree: merged --> Values: typed, checked --> render: into manifests/base
//! given: --values, --set, --images --+
//! ```

mod given;
mod kept;
mod render;
mod tree;
mod typed;

pub use given::given;
pub use kept::{keeps_plugin, kept, placed};
pub use render::render;
pub use tree::differences;
pub use typed::{Cni, Mtls, Part, PullPolicy, Server, Values};
