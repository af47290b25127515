//! Nodes of a laboratory with both halves of an agent in this process: the real capture half with its rules, the real
//! hand-over, the real workers; only the control plane and the certificate store are the test's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use weft_model::Mesh;
use weft_model::change::{Change, Resource};
use weft_model::ejection::EjectionSettings;
use weft_model::service::{AppProtocol, Service, ServiceAddress, ServiceKey, ServicePort};
use weft_model::workload::{TunnelProtocol, Workload};
use weft_node_agent::capture::probes::server::KubeletSettings;
use weft_node_agent::capture::serve::{CaptureSettings, serve};
use weft_node_agent::capture::settings::OnFailure;
use weft_node_agent::capture::status::{PodState, StatusHandle};
use weft_node_agent::dispatch::{Dispatcher, PodObserver, ask_through, nobody_served};
use weft_node_agent::environment::{Environment, ProxySettings, local_address};
use weft_node_agent::handover::server::{HandoverServer, HandoverSettings};
use weft_node_agent::handover::{HandoverClient, Hello};
use weft_node_agent::kubelet::{Kubelet, QuestionMetrics};
use weft_node_agent::node_info::NodeInfo;
use weft_node_agent::pods::roster::ReleasePatience;
use weft_node_agent::pods::{PodSpec, PodUid};
use weft_node_agent::telemetry::{ConnectionRecord, Lines, Telemetry};
use weft_node_agent::worker::health::EndpointHealth;
use weft_node_agent::worker::load::{Load, Peers};
use weft_node_agent::worker::run::{Worker, WorkerCommand};
use weft_node_agent::worker::served::{Served, ServedPod};
use weft_runtime::shared::{Reader, Writer, channel};
use weft_runtime::threads::{self, Worker as Thread};
use weft_testkit::netns::{Lab, Pod};

use crate::issuer::Issuer;

/// Workers of each agent: more than one, so that what one accepted another one must not be needed for.
const WORKERS: usize = 2;
/// Far longer than anything takes here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The mesh and its agents.
pub(crate) struct Cluster {
    mesh: Writer<Mesh>,
    reader: Reader<Mesh>,
    issuer: Arc<Issuer>,
    telemetry: Telemetry,
    records: Lines,
    agents: Vec<Agent>,
}

/// Both halves on one node. Ends when dropped.
struct Agent {
    node: String,
    wanted: watch::Sender<Arc<Vec<PodSpec>>>,
    status: StatusHandle,
    served: Reader<Served>,
    health: EndpointHealth,
    stop: Option<oneshot::Sender<()>>,
    control: Option<Thread<()>>,
}

struct Nobody;

impl PodObserver for Nobody {
    fn came(&self, _: &ServedPod) {}

    fn went(&self, _: &ServedPod) {}
}

impl Cluster {
    pub(crate) fn new(lab: &Lab, nodes: u8) -> Self {
        Self::tuned(lab, nodes, &ProxySettings::default(), EjectionSettings::default())
    }

    /// One node whose own namespaces are those of a process, and whose kubelet is a program with that name.
    pub(crate) fn with_kubelet(lab: &Lab, node_process: u32) -> Self {
        let mut cluster = Self::new(lab, 0);
        let socket = lab.directory().join("kubelet.sock");
        let kubelet = Kubelet::at(socket.clone(), QuestionMetrics::default());
        let asked =
            KubeletSettings { socket, allowed: vec![0], commands: vec!["kubelet".parse().unwrap()], node_process };
        let settings = ProxySettings { kubelet, ..ProxySettings::default() };
        let capture = CaptureSettings { kubelet: Some(asked), ..capture_settings(lab, "node1") };
        let agent = cluster.start(capture, settings, EndpointHealth::default());
        cluster.agents.push(agent);
        cluster
    }

    pub(crate) fn tuned(lab: &Lab, nodes: u8, settings: &ProxySettings, ejection: EjectionSettings) -> Self {
        let (mesh, reader) = channel(Mesh::default());
        let (telemetry, records) = Telemetry::new();
        let mut cluster =
            Self { mesh, reader, issuer: Arc::new(Issuer::new()), telemetry, records, agents: Vec::new() };
        for number in 1..=nodes {
            let capture = capture_settings(lab, &format!("node{number}"));
            let agent = cluster.start(capture, settings.clone(), EndpointHealth::new(ejection));
            cluster.agents.push(agent);
        }
        cluster
    }

    fn start(&self, capture: CaptureSettings, settings: ProxySettings, health: EndpointHealth) -> Agent {
        let node = capture.node.clone();
        let (wanted, receiver) = watch::channel(Arc::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let status = StatusHandle::default();
        let (writer, served) = nobody_served();
        let environment = Environment {
            mesh: self.reader.clone(),
            credentials: self.issuer.clone(),
            health: health.clone(),
            served: served.clone(),
            node: Arc::new(NodeInfo {
                name: node.as_str().into(),
                network: "".into(),
                cluster: "Kubernetes".into(),
                trust_domain: "cluster.local".into(),
            }),
            settings: Arc::new(settings),
            original_destination: local_address,
        };
        let halves = Halves {
            capture,
            environment,
            telemetry: self.telemetry.clone(),
            served: writer,
            wanted: receiver,
            status: status.clone(),
        };
        let control = threads::spawn(&node, move || halves.run(stopped)).unwrap();
        Agent { node, wanted, status, served, health, stop: Some(stop), control: Some(control) }
    }

    /// Enrols pods of the node and waits until they are captured and served.
    pub(crate) fn enrol(&mut self, pods: &[&Pod]) {
        for agent in &self.agents {
            let own = pods.iter().filter(|pod| format!("node{}", pod.node) == agent.node).map(|pod| spec(pod));
            let mut all: Vec<PodSpec> = agent.wanted.borrow().to_vec();
            all.extend(own);
            agent.wanted.send_replace(Arc::new(all));
        }
        for pod in pods {
            let agent = &self.agents[usize::from(pod.node) - 1];
            let uid = PodUid::from(pod.name.as_str());
            eventually(|| {
                let captured = agent.status.get().pods.get(&uid).is_some_and(|pod| pod.state == PodState::Captured);
                captured && agent.served.read(|served| served.pod(&uid).is_some())
            });
        }
        self.apply(pods.iter().map(|pod| Resource::Workload(workload(pod, TunnelProtocol::Hbone))));
    }

    pub(crate) fn apply(&mut self, resources: impl IntoIterator<Item = Resource>) {
        let changes = resources.into_iter().map(Change::Upsert).collect();
        self.mesh.update(|mesh| mesh.apply(changes));
    }

    /// What the agent of a node has learnt of endpoints.
    pub(crate) fn health(&self, node: u8) -> &EndpointHealth {
        &self.agents[usize::from(node) - 1].health
    }

    /// How many connections are relayed for a pod.
    pub(crate) fn relaying(&self, pod: &Pod) -> u64 {
        let served = self.agents[usize::from(pod.node) - 1].served.load();
        served.pod(&pod.name.as_str().into()).unwrap().relaying()
    }

    /// The next record that fits.
    pub(crate) fn record(&mut self, fits: impl Fn(&ConnectionRecord) -> bool) -> ConnectionRecord {
        let mut found = None;
        eventually(|| {
            while let Some(record) = self.records.next_now() {
                if fits(&record) {
                    found = Some(record);
                    return true;
                }
            }
            false
        });
        found.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(control) = self.control.take() {
            let _ = control.join_blocking();
        }
    }
}

/// What runs on a node's control thread.
struct Halves {
    capture: CaptureSettings,
    environment: Environment,
    telemetry: Telemetry,
    served: Writer<Served>,
    wanted: watch::Receiver<Arc<Vec<PodSpec>>>,
    status: StatusHandle,
}

impl Halves {
    async fn run(self, stopped: oneshot::Receiver<()>) {
        let Self { capture, environment, telemetry, served, wanted, status } = self;
        let path = capture.handover.path.clone();
        let server = HandoverServer::bind(capture.handover.clone()).unwrap();
        let (end_capture, capture_ends) = oneshot::channel::<()>();
        let privileged = tokio::task::spawn_local(async move {
            serve(capture, server, wanted, status, async { _ = capture_ends.await }).await.unwrap();
        });
        let (questions, asked) = mpsc::unbounded_channel();
        let loads: [Load; WORKERS] = std::array::from_fn(|_| Load::default());
        let (workers_commands, orders): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| mpsc::unbounded_channel()).unzip();
        let mut workers = Vec::new();
        for (number, orders) in orders.into_iter().enumerate() {
            let (environment, telemetry, questions) = (environment.clone(), telemetry.worker(), questions.clone());
            let others = workers_commands.iter().map(mpsc::UnboundedSender::downgrade).collect();
            let (name, loads) = (format!("w{number}-{}", environment.node.name), loads.clone());
            let worker = threads::spawn(&name, move || {
                let peers = Peers::new(number, &loads, others);
                Worker::new(environment, telemetry, ask_through(questions, number)).among(peers).run(orders)
            });
            workers.push(worker.unwrap());
        }
        let hello = Hello { workers: WORKERS, node: environment.node.name.to_string(), born: 0 };
        let (events, handle) = HandoverClient::connect_when_there(&path, hello);
        let dispatcher = Dispatcher::new(environment.node.clone(), workers_commands.clone(), handle, served, Nobody);
        let dispatching =
            tokio::task::spawn_local(dispatcher.run(events, asked, tokio_util::sync::CancellationToken::new()));
        let _ = stopped.await;
        for commands in &workers_commands {
            let _ = commands.send(WorkerCommand::Drain { deadline: tokio::time::Instant::now() });
        }
        for mut worker in workers {
            worker.join().await.unwrap();
        }
        dispatching.abort();
        drop(end_capture);
        privileged.await.unwrap();
    }
}

fn capture_settings(lab: &Lab, node: &str) -> CaptureSettings {
    let path = lab.directory().join(format!("{node}.sock"));
    CaptureSettings {
        cni_socket: None,
        kubelet: None,
        node: node.to_owned(),
        handover: HandoverSettings { path, mode: 0o600, owner: None, allowed: vec![0] },
        xtables_lock: lab.directory().join("xtables.lock"),
        workers: WORKERS,
        enrol_deadline: Duration::from_secs(60),
        settle: Duration::from_millis(200),
        release: ReleasePatience { grace: Duration::from_millis(10), deadline: Duration::from_secs(60) },
        audit_interval: Duration::from_secs(10),
        on_failure: OnFailure::Close,
        release_on_exit: false,
    }
}

fn spec(pod: &Pod) -> PodSpec {
    PodSpec {
        uid: pod.name.as_str().into(),
        name: pod.name.clone(),
        namespace: "shop".into(),
        service_account: account(pod).to_owned(),
        addresses: vec![pod.v4.into(), pod.v6.into()],
        netns: Some(pod.netns.clone()),
        strict: false,
        enrolled: true,
        probe_ports: [8080].into(),
    }
}

fn account(pod: &Pod) -> &str {
    pod.name.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// A pod as the control plane would describe it; an endpoint of the service with its account's name.
pub(crate) fn workload(pod: &Pod, tunnel: TunnelProtocol) -> Workload {
    let mut workload = Workload::named("Kubernetes", "shop", &pod.name);
    workload.service_account = account(pod).into();
    workload.addresses = vec![pod.v4.into(), pod.v6.into()];
    workload.tunnel = tunnel;
    workload.node = format!("node{}", pod.node).as_str().into();
    workload.services = [(key(account(pod)), Vec::new())].into_iter().collect();
    workload
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", &format!("{name}.shop.svc.cluster.local"))
}

/// A service with a VIP in both families, port 80 to 8080.
pub(crate) fn service(name: &str, last: u8) -> Resource {
    let mut service = Service::named("shop", name, &key(name).hostname);
    service.addresses = ["10.96.0.", "fd96::"]
        .map(|prefix| ServiceAddress::single("", format!("{prefix}{last}").parse().unwrap()))
        .into();
    service.ports = vec![ServicePort { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }];
    Resource::Service(service)
}

/// Waits for a condition.
#[expect(clippy::disallowed_methods, reason = "polls what other threads do until a deadline")]
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "never came true");
        std::thread::sleep(Duration::from_millis(3));
    }
}
