//! A cluster's objects as a directory of Kubernetes YAML, in step with the laboratory's pods and addresses.
//!
//! `plan` says what shall exist, `yaml` words one object (pure), `directory` puts files in place by rename, `cluster` keeps lab, files and service
//! addresses together: it is what tests and the demo use.

mod cluster;
mod directory;
mod plan;
mod yaml;

pub use cluster::Cluster;
pub use directory::MeshDirectory;
pub use plan::{Pairs, PodPlan, ServicePlan};
pub use yaml::{namespace, node, pod, service, service_account};
