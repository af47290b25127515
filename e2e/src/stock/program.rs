//! How a stock ztunnel is told everything.

use std::net::SocketAddr;
use std::path::PathBuf;

use weft_testkit::agents::{AGENT_HEALTH, DaemonPlan, Deployment, SERVER_NAME, SERVER_PORT};
use weft_testkit::mesh::Cluster;
use weft_testkit::netns::CONTROL_V4;

use super::zds::ZdsServer;

/// What istio-cni writes when a pod is captured.
pub const REDIRECTED: (&str, &str) = ("ambient.istio.io/redirection", "enabled");

/// The program on node `node` (from 1), which logs what `log` says.
#[must_use]
pub fn plan(cluster: &Cluster, node: u8, zds: &ZdsServer, (program, log): (PathBuf, &str)) -> DaemonPlan {
    let server = format!("https://{CONTROL_V4}:{SERVER_PORT}");
    let node = cluster.lab().node(node);
    let root = Deployment::root_certificate(cluster).display().to_string();
    let token = Deployment::token_file(cluster, &node.name).display().to_string();
    let environment = [
        ("RUST_LOG", log),
        ("XDS_ADDRESS", &server),
        ("CA_ADDRESS", &server),
        ("XDS_ROOT_CA", &root),
        ("CA_ROOT_CA", &root),
        ("ALT_XDS_HOSTNAME", SERVER_NAME),
        ("ALT_CA_HOSTNAME", SERVER_NAME),
        ("AUTH_TOKEN", &token),
        ("NODE_NAME", &node.name),
        ("CLUSTER_ID", "Kubernetes"),
        ("INPOD_UDS", &zds.path().display().to_string()),
        // Long enough that a test sees a drain, short enough that it ends.
        ("CONNECTION_TERMINATION_DEADLINE", "5s"),
        ("ZTUNNEL_WORKER_THREADS", "2"),
    ];
    DaemonPlan {
        name: format!("ztunnel-{}", node.name),
        netns: node.netns().to_owned(),
        command: vec![program.into_os_string()],
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        health: Some(SocketAddr::from(([127, 0, 0, 1], AGENT_HEALTH))),
        logs: cluster.lab().directory().join("logs"),
    }
}
