//! A mesh in one process: workers, certificates and pods on loopback addresses of their own, nothing captured. A service's VIP
//! is an address that the client pod's outbound listener is bound to, so that an accepted socket's local address is the
//! original destination, as with TPROXY. The capture half is played by a closure that makes plain sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_identity::Credentials;
use weft_model::change::{Change, Resource};
use weft_model::service::{AppProtocol, Service, ServiceAddress, ServiceKey, ServicePort};
use weft_model::workload::{TunnelProtocol, Workload};
use weft_model::{Mesh, Reason, SpiffeId};
use weft_node_agent::environment::{Environment, OriginalDestination, ProxySettings, local_address};
use weft_node_agent::handover::{Family, PodInfo, WorkerListeners};
use weft_node_agent::node_info::NodeInfo;
use weft_node_agent::pods::PodUid;
use weft_node_agent::telemetry::{ConnectionRecord, Direction, Lines, Telemetry};
use weft_node_agent::worker::credentials::CredentialSource;
use weft_node_agent::worker::health::EndpointHealth;
use weft_node_agent::worker::limits::Limits;
use weft_node_agent::worker::run::{Worker, WorkerCommand};
use weft_node_agent::worker::served::Served;
use weft_node_agent::worker::sockets::tune;
use weft_runtime::shared::{Reader, Writer, channel};

use crate::issuer::Issuer;

/// Everything here happens within milliseconds; this is only so that a fault ends the test.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// The port of the service, and of the application behind it.
pub(crate) const SERVICE_PORT: u16 = 8080;
pub(crate) const APP_PORT: u16 = 9090;

/// The mesh, and where the workers' records arrive.
pub(crate) struct World {
    net: [u8; 2],
    mesh: Writer<Mesh>,
    reader: Reader<Mesh>,
    pub(crate) issuer: Arc<Issuer>,
    telemetry: Telemetry,
    records: Lines,
    seen: Vec<ConnectionRecord>,
    /// Of agents that are started from now on.
    pub(crate) limits: Limits,
    /// Of agents that are started from now on: for how long a peer may take to introduce itself.
    pub(crate) handshake_timeout: Duration,
    /// Of agents that are started from now on: how long the way to a peer is looked for.
    pub(crate) connect_timeout: Duration,
}

/// One worker of one agent.
pub(crate) struct Agent {
    pub(crate) commands: mpsc::UnboundedSender<WorkerCommand>,
    pub(crate) task: JoinHandle<()>,
    served: Writer<Served>,
    node: Arc<NodeInfo>,
}

impl World {
    /// A world on a loopback network of its own, so that tests run beside each other.
    pub(crate) fn new() -> Self {
        Self::with_issuer(Issuer::new())
    }

    /// As [`World::new`], with certificates of another kind.
    pub(crate) fn with_issuer(issuer: Issuer) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let process = 10 + u8::try_from(std::process::id() % 200).unwrap();
        let net = [process, NEXT.fetch_add(1, Ordering::Relaxed)];
        let issuer = Arc::new(issuer);
        let (mesh, reader) = channel(Mesh::default());
        let (telemetry, records) = Telemetry::new();
        let ProxySettings { handshake_timeout, connect_timeout, .. } = ProxySettings::default();
        let (seen, limits) = (Vec::new(), Limits::default());
        Self { net, mesh, reader, issuer, telemetry, records, seen, limits, handshake_timeout, connect_timeout }
    }

    /// The `last`-th address.
    pub(crate) fn ip(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.net[0], self.net[1], last))
    }

    pub(crate) fn at(&self, last: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(last), port)
    }

    pub(crate) fn apply(&mut self, resources: impl IntoIterator<Item = Resource>) {
        let changes = resources.into_iter().map(Change::Upsert).collect();
        self.mesh.update(|mesh| mesh.apply(changes));
    }

    /// Makes a pod known: captured, behind service `cart` if it is one of its endpoints.
    pub(crate) fn workload(&self, name: &str, last: u8) -> Workload {
        let mut workload = Workload::named("Kubernetes", "shop", name);
        workload.service_account = account(name).into();
        workload.addresses = vec![self.ip(last)];
        workload.tunnel = TunnelProtocol::Hbone;
        if account(name) == "cart" {
            workload.services = [(cart_key(), Vec::new())].into_iter().collect();
        }
        workload
    }

    /// Service `cart`, at the VIP with that last number.
    pub(crate) fn cart(&self, last: u8) -> Service {
        let mut service = Service::named("shop", "cart", &cart_key().hostname);
        service.addresses = vec![ServiceAddress::single("", self.ip(last))];
        service.ports =
            vec![ServicePort { service_port: SERVICE_PORT, target_port: APP_PORT, app_protocol: AppProtocol::Unknown }];
        service
    }

    pub(crate) fn credentials(&self, identity: &SpiffeId) -> Arc<Credentials> {
        self.issuer.current(identity).unwrap()
    }

    /// One worker. Several in one test are several nodes.
    pub(crate) fn agent(&self, node: &str) -> Agent {
        self.agent_with(node, local_address)
    }

    pub(crate) fn agent_with(&self, node: &str, original_destination: OriginalDestination) -> Agent {
        let node = Arc::new(NodeInfo {
            name: node.into(),
            network: "".into(),
            cluster: "Kubernetes".into(),
            trust_domain: "cluster.local".into(),
        });
        let (served, served_reader) = channel(Served::default());
        let settings = ProxySettings {
            workload_wait: Duration::from_secs(2),
            limits: self.limits.clone(),
            handshake_timeout: self.handshake_timeout,
            connect_timeout: self.connect_timeout,
            ..ProxySettings::default()
        };
        let environment = Environment {
            mesh: self.reader.clone(),
            credentials: self.issuer.clone(),
            health: EndpointHealth::default(),
            served: served_reader,
            node: node.clone(),
            settings: Arc::new(settings),
            original_destination,
        };
        let (commands, queue) = mpsc::unbounded_channel();
        let answers = commands.downgrade();
        let ask = move |uid: &PodUid, family: Family, count: usize| {
            let sockets = (0..count).map(|_| dial_socket(family)).collect();
            let Some(answers) = answers.upgrade() else { return };
            answers.send(WorkerCommand::Sockets { uid: uid.clone(), family, sockets }).unwrap();
        };
        let worker = Worker::new(environment, self.telemetry.worker(), Box::new(ask));
        Agent { commands, task: tokio::task::spawn_local(worker.run(queue)), served, node }
    }

    /// The next record that fits, also among those that passed by before.
    pub(crate) async fn record(&mut self, direction: Direction) -> ConnectionRecord {
        let waited = timeout(SOON, async {
            loop {
                if let Some(at) = self.seen.iter().position(|record| record.direction == direction) {
                    return self.seen.remove(at);
                }
                self.seen.push(self.records.next().await.expect("the world holds a sender"));
            }
        });
        waited.await.expect("no record")
    }

    /// The reasons of the client's side and of the server's.
    pub(crate) async fn reasons(&mut self) -> (Option<Reason>, Option<Reason>) {
        let outbound = self.record(Direction::Outbound).await;
        let inbound = self.record(Direction::Inbound).await;
        (outbound.reason, inbound.reason)
    }
}

/// `cart` of `cart2`.
fn account(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

pub(crate) fn cart_key() -> ServiceKey {
    ServiceKey::new("shop", "cart.shop.svc.cluster.local")
}

fn dial_socket(family: Family) -> OwnedFd {
    let domain = if family == Family::V4 { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.into()
}

pub(crate) fn listener(at: SocketAddr) -> std::net::TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    // As the capture half makes them: what waits in the queue before a worker takes the listener has its options, too.
    tune(&socket).unwrap();
    socket.bind(&at.into()).unwrap_or_else(|error| panic!("{at}: {error}"));
    socket.listen(128).unwrap();
    socket.into()
}

impl Agent {
    /// Serves a pod: its own calls to `outbound`, plaintext at `inbound`, and HBONE.
    pub(crate) fn serve(&mut self, workload: &Workload, outbound: &[SocketAddr], inbound: &[SocketAddr]) -> PodUid {
        let hbone = workload.addresses.iter().map(|address| listener(SocketAddr::new(*address, 15008))).collect();
        let listeners = WorkerListeners {
            outbound: outbound.iter().copied().map(listener).collect(),
            inbound: inbound.iter().copied().map(listener).collect(),
            hbone,
        };
        self.serve_at(workload, listeners)
    }

    /// Serves a pod at listeners that somebody else may hold open, too.
    pub(crate) fn serve_at(&mut self, workload: &Workload, listeners: WorkerListeners) -> PodUid {
        let uid = PodUid::from(format!("uid-of-{}", workload.name));
        let info = PodInfo {
            uid: uid.clone(),
            name: workload.name.to_string(),
            namespace: workload.namespace.to_string(),
            service_account: workload.service_account.to_string(),
            addresses: workload.addresses.clone(),
            node: self.node.name.to_string(),
            strict: false,
        };
        let next = self.served.load().with(&self.node, Arc::new(info)).unwrap();
        let pod = next.pod(&uid).unwrap().clone();
        self.served.publish(next);
        self.commands.send(WorkerCommand::AddPod { pod, listeners }).unwrap();
        uid
    }

    /// How many connections are relayed for a pod.
    pub(crate) fn relaying(&self, uid: &PodUid) -> u64 {
        self.served.load().pod(uid).unwrap().relaying()
    }
}

/// An application.
pub(crate) async fn app(at: SocketAddr) -> TcpListener {
    TcpListener::bind(at).await.unwrap()
}

/// A client's call from its pod's address.
pub(crate) async fn call(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    soon(socket.connect(to)).await.unwrap()
}

/// With a deadline, so that a fault is a failure and not a hang.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("took too long")
}
