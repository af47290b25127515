//! What the data path is given: values that everybody reads and nobody on a data worker changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use weft_hbone::settings::KeepaliveSettings;
use weft_hbone::{ConnectionSettings, PoolSettings};
use weft_model::Mesh;
use weft_runtime::shared::Reader;

use crate::kubelet::Kubelet;
use crate::node_info::NodeInfo;
use crate::worker::credentials::CredentialSource;
use crate::worker::health::EndpointHealth;
use crate::worker::limits::Limits;
use crate::worker::reserve::AcceptMetrics;
use crate::worker::served::Served;
use crate::worker::turns::Company;

/// A peer that vanished without a word is gone after 15 s at most: its kernel leaves the PING unacknowledged
/// (`worker::tunnels::limit_silence`), or its agent unanswered. Half of what stock peers take at best.
const KEEPALIVE: KeepaliveSettings =
    KeepaliveSettings { interval: Duration::from_secs(5), timeout: Duration::from_secs(10) };

/// Numbers of the data path.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// TCP to a plain target; and how long attempts for one connection may begin. 10 s, as ztunnel.
    pub connect_timeout: Duration,
    /// TCP to a peer agent, whose kernel answers whatever its load. 2 s: time for a second SYN (after 1 s). Whoever has no
    /// other endpoint dials again.
    pub tunnel_connect_timeout: Duration,
    /// How long an attempt may be without an answer while another endpoint could be tried. 2 s: longer than an
    /// application with a full queue takes to be answered at the second SYN.
    pub attempt_patience: Duration,
    /// TCP to an application of this node, on one source port. 0.9 s: silence means a port that a path holds which the kernel
    /// does not show, or a full queue (`docs/capture.md`), so the next port is tried; just before the kernel repeats
    /// the SYN (after 1.0 s), which could otherwise connect in the moment in which we give up.
    pub application_timeout: Duration,
    /// How long a captured connection waits for the control plane to name its pod. 5 s, as ztunnel.
    pub workload_wait: Duration,
    /// How long a policy that a workload names, but that has not been received, is waited for: by a new connection before it
    /// is refused, by a live one before it is cut. istiod sends the workload first and its policy right behind it, in another
    /// message: milliseconds (our own server sends policies first). 2 s.
    pub policy_wait: Duration,
    /// How long a connection waits for a dial socket. 5 s: a capture half that restarts is back within two.
    pub socket_wait: Duration,
    /// TLS and HTTP/2 of a client that came to 15008. 10 s, as for our own dials.
    pub handshake_timeout: Duration,
    /// How long a connection waits for the first certificate of its workload. 5 s, as for the workload itself.
    pub certificate_wait: Duration,
    /// HTTP/2 of tunnels that come in.
    pub tunnel: ConnectionSettings,
    /// Tunnels that go out.
    pub pool: PoolSettings,
    /// How much pods, peers and all together may hold.
    pub limits: Limits,
    /// What is counted where connections are accepted.
    pub accepts: AcceptMetrics,
    /// Who says whether a connection is a probe.
    pub kubelet: Kubelet,
    /// Who uses the agent: where there is company, callers with many connections take turns.
    pub company: Company,
}

impl Default for ProxySettings {
    fn default() -> Self {
        let connection = ConnectionSettings { keepalive: KEEPALIVE, ..ConnectionSettings::default() };
        Self {
            connect_timeout: Duration::from_secs(10),
            tunnel_connect_timeout: Duration::from_secs(2),
            attempt_patience: Duration::from_secs(2),
            application_timeout: Duration::from_millis(900),
            workload_wait: Duration::from_secs(5),
            policy_wait: Duration::from_secs(2),
            socket_wait: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            certificate_wait: Duration::from_secs(5),
            limits: Limits::default(),
            accepts: AcceptMetrics::default(),
            kubelet: Kubelet::default(),
            company: Company::default(),
            tunnel: connection.clone(),
            pool: PoolSettings { connection, ..PoolSettings::default() },
        }
    }
}

/// Where a captured connection was going before it was captured.
pub type OriginalDestination = fn(&TcpStream) -> std::io::Result<std::net::SocketAddr>;

/// With TPROXY the accepted socket's own address is the original destination (`docs/capture.md`).
///
/// # Errors
/// When the socket is gone.
pub fn local_address(stream: &TcpStream) -> std::io::Result<std::net::SocketAddr> {
    stream.local_addr()
}

/// Everything a data worker reads. Cheap to clone: one for each worker.
#[derive(Clone)]
pub struct Environment {
    /// The mesh.
    pub mesh: Reader<Mesh>,
    /// The certificates of this node's workloads.
    pub credentials: Arc<dyn CredentialSource>,
    /// The pods that this agent serves now.
    pub served: Reader<Served>,
    /// Endpoints, peers and nodes that connections failed at lately.
    pub health: EndpointHealth,
    /// Where we are.
    pub node: Arc<NodeInfo>,
    /// Numbers.
    pub settings: Arc<ProxySettings>,
    /// How a captured socket says where it was going; [`local_address`] but in tests.
    pub original_destination: OriginalDestination,
}
