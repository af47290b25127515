//! The proxy half: makes every part, joins them, and ends them in order.
//!
//! ```text
//! signals -> drain            control thread                          data workers
//!   xDS stream -> Writer<Mesh> ------------------- Reader<Mesh> ------> decide, admit
//!   certificate store <- Dispatcher <- handover    Store ------------> TLS
//!   reporter -> control plane     '----- WorkerCommand --------------> listeners, sockets
//!   admin, metrics, access log <------------------ counters, records --'
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::select_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_identity::store::{Settings, StoreMetrics};
use weft_identity::{RemoteAuthority, Store};
use weft_model::Mesh;
use weft_runtime::admin::Admin;
use weft_runtime::metrics::Registry;
use weft_runtime::readiness::Readiness;
use weft_runtime::shared::{self, Reader};
use weft_runtime::signals::Signals;
use weft_runtime::threads::{self, Worker as Thread};
use weft_runtime::{drain, logging};
use weft_wire::ca::CaClient;
use weft_wire::delta::{DeltaStream, StreamStatus};
use weft_wire::report::Reporter;

use super::certificates::Certificates;
use super::condition::CaptureMetrics;
use super::ejections::EjectionMetrics;
use super::metrics::PlaneMetrics;
use super::pages::{HANDOVER, Pages};
use super::parting::{Parting, part};
use super::plane::ControlPlane;
use super::report::report;
use super::sections::{Sources, register};
use super::trust::keep_trust;
use crate::config::{CommonOptions, ProxyOptions};
use crate::dispatch::{Dispatcher, SocketQuestion, ask_through, nobody_served};
use crate::environment::{Environment, ProxySettings, local_address};
use crate::handover::{HandoverClient, Hello};
use crate::kubelet::{Kubelet, QuestionMetrics, SOCKET_FILE};
use crate::limits::{self, Memory};
use crate::node_info::NodeInfo;
use crate::sandbox::Enclosure;
use crate::telemetry::{AccessLog, Telemetry};
use crate::worker::health::EndpointHealth;
use crate::worker::limits::Limits;
use crate::worker::load::{Load, Peers};
use crate::worker::reserve::AcceptMetrics;
use crate::worker::run::{Worker, WorkerCommand};
use crate::worker::served::Served;
use crate::worker::turns::Company;

/// Runs the proxy half until a signal comes, then drains it.
///
/// # Errors
/// When it cannot start: an address is taken, the settings contradict each other, a thread cannot be had.
pub async fn run_proxy(
    common: CommonOptions,
    options: ProxyOptions,
    logging: logging::Handle,
    enclosure: &Enclosure,
) -> anyhow::Result<()> {
    weft_identity::tls::install_default_provider();
    let descriptors = limits::raise_open_files();
    let mut signals = Signals::new()?;
    let registry = Registry::new("weft-node-agent", env!("CARGO_PKG_VERSION"));
    let memory = Memory::new(options.memory_limit, &registry);
    let readiness = Readiness::new();
    let pages = Pages::bind(&options, &common.node, &common.handover).await?;
    let plane = ControlPlane::new(&options.control_plane, &common.node)?;
    let node = Arc::new(node_info(&common, &options));
    let mut tasks = JoinSet::new();

    let (mesh_reader, status) = start_stream(&plane, &mut tasks);
    let store = start_store(&plane, &registry, &mut tasks);
    follow_plane(&mut tasks, &registry, &store, &plane, &status);

    let (telemetry, lines) = Telemetry::new();
    registry.register(|registry| registry.register_collector(Box::new(telemetry.clone())));
    let log = AccessLog::start(lines, options.access_log, std::io::stdout())?;
    let refusals = log.refusals();
    let writer = tokio::task::spawn_local(log.run());

    let certificates = Certificates::new(store.clone());
    let (served_writer, served) = nobody_served();
    let health = endpoint_health(&options, &registry);
    registry.register(|registry| registry.register_collector(Box::new(CaptureMetrics(served.clone()))));
    let environment = Environment {
        mesh: mesh_reader.clone(),
        credentials: Arc::new(certificates.clone()),
        health: health.clone(),
        served: served.clone(),
        node: node.clone(),
        settings: Arc::new(ProxySettings {
            accepts: AcceptMetrics::new(&registry),
            company: Company::new(&registry),
            kubelet: Kubelet::at(common.handover.with_file_name(SOCKET_FILE), QuestionMetrics::new(&registry)),
            ..numbers(&options, (descriptors, &memory))
        }),
        original_destination: local_address,
    };
    tasks.spawn_local(memory.watch());
    let (questions, asked) = mpsc::unbounded_channel();
    let (mut threads, workers) = start_workers(&environment, &telemetry, &questions, options.worker_count())?;

    let sources = Sources {
        node: node.clone(),
        mesh: mesh_reader,
        served: served.clone(),
        store,
        stream: status.clone(),
        refusals,
        health,
        workers: workers.clone(),
        settings: shown_settings(&common, &options, enclosure, &environment.settings.limits),
        control_plane: options.control_plane.xds_address.to_string(),
    };
    let admin = register(Admin::new(readiness.clone(), registry).logging(logging), &sources);
    let parted = served.clone();
    let (page_drain, page_watch) = drain::channel();
    tasks.spawn_local(pages.serve(admin, readiness.clone(), served.clone(), page_watch));

    let hello = Hello { workers: threads.len(), node: common.node.clone(), born: born() };
    let (handover, draining) = (common.handover.clone(), CancellationToken::new());
    let gate = (readiness.wait_for("control plane: first answer"), readiness.wait_for("capture half: first pods"));
    if options.say_ready {
        tasks.spawn_local(say_when_ready(readiness.clone()));
    }
    tasks.spawn_local(report_when_ready(&plane, readiness, (node.clone(), served, status.clone())));
    let (commands, drained) = (workers.clone(), draining.clone());
    tasks.spawn_local(async move {
        wait_for_mesh(status).await;
        drop(gate.0);
        let (events, handle) = HandoverClient::connect_when_there(&handover, hello);
        let dispatcher = Dispatcher::new(node, commands, handle, served_writer, certificates);
        dispatcher.on_first_snapshot(gate.1).run(events, asked, drained).await;
    });

    let ended = wait_for_the_end(&mut signals, &mut tasks, &mut threads).await;
    draining.cancel();
    finish(threads, workers, part(parted).await, &options).await;
    tasks.shutdown().await;
    drop((telemetry, environment));
    let _outcome = page_drain.drain(std::time::Duration::from_secs(1)).await;
    // Every worker is gone, so the queue ends and with it the writer.
    let _written = tokio::time::timeout(std::time::Duration::from_secs(1), writer).await;
    ended
}

fn numbers(options: &ProxyOptions, (descriptors, memory): (u64, &Memory)) -> ProxySettings {
    let mut settings = ProxySettings {
        connect_timeout: options.connect_timeout,
        limits: Limits::of(descriptors, options.max_connections_per_pod, memory.budget()),
        ..ProxySettings::default()
    };
    // What tunnels hold for readers that are slow counts like everything else that connections cost.
    settings.tunnel.memory = memory.budget();
    settings.pool.connection.memory = memory.budget();
    settings
}

/// A proxy that has just started serves nobody yet, and saying so would make peers speak plaintext to its pods: the first
/// report waits until the capture half has named them.
fn report_when_ready(
    plane: &ControlPlane,
    readiness: Readiness,
    (node, served, status): (Arc<NodeInfo>, Reader<Served>, Reader<StreamStatus>),
) -> impl Future<Output = ()> + use<> {
    let reporter = Reporter::new(plane.discovery.clone(), plane.credentials.clone());
    async move {
        readiness.ready().await;
        report(reporter, node, served, status).await;
    }
}

fn node_info(common: &CommonOptions, options: &ProxyOptions) -> NodeInfo {
    NodeInfo {
        name: common.node.as_str().into(),
        network: options.control_plane.network.as_str().into(),
        cluster: options.control_plane.cluster.as_str().into(),
        trust_domain: options.control_plane.trust_domain.as_str().into(),
    }
}

/// What is left out for a while, and counted.
fn endpoint_health(options: &ProxyOptions, registry: &Registry) -> EndpointHealth {
    let health = EndpointHealth::new(options.ejection.settings());
    registry.register(|registry| registry.register_collector(Box::new(EjectionMetrics(health.clone()))));
    health
}

/// What follows from the state of the stream, and what is counted of it.
fn follow_plane(
    tasks: &mut JoinSet<()>,
    registry: &Registry,
    store: &Store,
    plane: &ControlPlane,
    status: &Reader<StreamStatus>,
) {
    tasks.spawn_local(keep_trust(store.clone(), plane.learnt.clone(), plane.root_files.clone(), status.clone()));
    registry.register(|registry| registry.register_collector(Box::new(PlaneMetrics(status.clone()))));
}

/// How long workers may take to empty the listeners' queues before they drain: the capture half has let nobody into these for a while.
const LAST_OF_THE_QUEUES: std::time::Duration = std::time::Duration::from_millis(100);

type Workers = (Vec<Thread<()>>, Vec<mpsc::UnboundedSender<WorkerCommand>>);

fn start_workers(
    environment: &Environment,
    telemetry: &Telemetry,
    questions: &mpsc::UnboundedSender<SocketQuestion>,
    count: usize,
) -> Result<Workers, threads::SpawnError> {
    let loads: Vec<Load> = (0..count).map(|_| Load::default()).collect();
    let (commands, orders): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
    let mut workers = (Vec::with_capacity(count), commands);
    for (number, orders) in orders.into_iter().enumerate() {
        let (environment, telemetry, questions) = (environment.clone(), telemetry.worker(), questions.clone());
        let others = workers.1.iter().map(mpsc::UnboundedSender::downgrade).collect();
        let loads = loads.clone();
        let thread = threads::spawn(&format!("worker-{number}"), move || {
            let peers = Peers::new(number, &loads, others);
            Worker::new(environment, telemetry, ask_through(questions, number)).among(peers).run(orders)
        })?;
        workers.0.push(thread);
    }
    Ok(workers)
}

/// When this process was started, in ticks (10 ms) since the machine was; 0, the oldest, where that cannot be read.
fn born() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    started(&stat).unwrap_or_default()
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); the program's name, field 2, may hold anything but ends with the last
/// parenthesis.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// To the supervisor, which gave us the end of a pipe as standard input (`run`).
async fn say_when_ready(readiness: Readiness) {
    readiness.ready().await;
    if let Err(error) = rustix::io::write(std::io::stdin(), b"\n") {
        tracing::warn!(%error, "cannot tell the supervisor that this proxy is ready");
    }
    // A task of the control thread that ends would end the program.
    std::future::pending().await
}

fn start_stream(plane: &ControlPlane, tasks: &mut JoinSet<()>) -> (Reader<Mesh>, Reader<StreamStatus>) {
    let (mut mesh, reader) = shared::channel(Mesh::default());
    let (stream, status) = DeltaStream::new(plane.discovery.clone(), plane.stream());
    tasks.spawn_local(async move {
        stream.run(|batch| mesh.update(|mesh| mesh.apply(batch.changes))).await;
    });
    (reader, status)
}

fn start_store(plane: &ControlPlane, registry: &Registry, tasks: &mut JoinSet<()>) -> Store {
    let authority = Arc::new(RemoteAuthority::new(CaClient::new(plane.authority.clone(), plane.credentials.clone())));
    let (clock, dice) = (weft_identity::clock::system(), StdRng::from_rng(&mut rand::rng()));
    let (store, driver) = Store::new(authority, Settings::default(), clock, dice, StoreMetrics::new(registry));
    tasks.spawn_local(driver.run());
    store
}

/// No pod is captured by a proxy that knows nothing: its connections would only wait and fail
/// (as ztunnel).
async fn wait_for_mesh(mut status: Reader<StreamStatus>) {
    if status.wait_until(StreamStatus::is_ready).await.is_err() {
        // The stream's task is gone: the program ends.
        std::future::pending::<()>().await;
    }
}

/// A signal ends the program well; a task or worker that ended by itself does not: without its worker, a listener's queue
/// would only fill, and its clients wait for nobody, until a successor takes it.
async fn wait_for_the_end(
    signals: &mut Signals,
    tasks: &mut JoinSet<()>,
    threads: &mut [Thread<()>],
) -> anyhow::Result<()> {
    let worker = select_all(threads.iter_mut().map(|thread| Box::pin(thread.join())));
    tokio::select! {
        signal = signals.next() => {
            tracing::info!(?signal, "draining");
            Ok(())
        }
        Some(task) = tasks.join_next() => match task {
            Ok(()) => Err(anyhow::anyhow!("a task of the control thread ended")),
            Err(error) => Err(anyhow::anyhow!("a task of the control thread failed: {error}")),
        },
        (ended, ..) = worker => match ended {
            Ok(()) => Err(anyhow::anyhow!("a worker ended")),
            Err(error) => Err(anyhow::anyhow!("a worker failed: {error}")),
        },
    }
}

async fn finish(
    threads: Vec<Thread<()>>,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    parting: Parting,
    options: &ProxyOptions,
) {
    tracing::info!(?parting, "finishing what is open");
    if parting == Parting::Alone {
        for worker in &workers {
            let _ended = worker.send(WorkerCommand::Close);
        }
        tokio::time::sleep(LAST_OF_THE_QUEUES).await;
    }
    let deadline = Instant::now() + parting.patience(options.drain_deadline, options.drain_deadline_alone);
    for worker in &workers {
        // A worker that ended already has nothing to drain.
        let _ended = worker.send(WorkerCommand::Drain { deadline });
    }
    for mut thread in threads {
        if let Err(error) = thread.join().await {
            tracing::error!(%error, "a worker did not end well");
        }
    }
}

fn shown_settings(
    common: &CommonOptions,
    options: &ProxyOptions,
    enclosure: &Enclosure,
    limits: &Limits,
) -> BTreeMap<String, String> {
    let plane = &options.control_plane;
    let shown = [
        ("node", common.node.clone()),
        (HANDOVER, common.handover.display().to_string()),
        ("cluster", plane.cluster.clone()),
        ("network", plane.network.clone()),
        ("trust domain", plane.trust_domain.clone()),
        ("workers", options.worker_count().to_string()),
        ("drain deadline", humantime::format_duration(options.drain_deadline).to_string()),
        ("connect timeout", humantime::format_duration(options.connect_timeout).to_string()),
        ("connections per pod", limits.connections_per_pod.to_string()),
        ("open files", limits.descriptors.known().to_string()),
        (
            "bytes for connections",
            limits.budget.limit().map_or_else(|| "no limit".to_owned(), |limit| limit.to_string()),
        ),
        ("ejection failures", options.ejection.ejection_failures.to_string()),
        ("ejection time", humantime::format_duration(options.ejection.ejection_time).to_string()),
        ("ejection share", format!("{} %", options.ejection.ejection_share)),
        ("token file", plane.token_file.display().to_string()),
        ("roots", plane.roots.display().to_string()),
        ("sandbox", enclosure.to_string()),
    ];
    shown.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use weft_runtime::signals::Signals;
    use weft_runtime::threads;

    use super::{born, started, wait_for_the_end};

    #[test]
    fn a_start_is_read_whatever_the_programs_name_is() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(started(&format!("7 (weft) 1 2) x) {rest}")), Some(4711));
        assert_eq!(started("7 (weft"), None);
        assert!(born() > 0);
    }

    /// Its listeners' queues would fill while the program looks well.
    #[tokio::test]
    async fn a_worker_that_fails_ends_the_program() {
        let lives = threads::spawn("lives", std::future::pending::<()>).unwrap();
        let fails = threads::spawn("fails", || async { panic!("an invariant is broken") }).unwrap();
        let mut threads = [lives, fails];
        let (mut signals, mut tasks) = (Signals::new().unwrap(), JoinSet::new());
        let ended = wait_for_the_end(&mut signals, &mut tasks, &mut threads);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await.expect("in time");
        assert!(ended.unwrap_err().to_string().contains("an invariant is broken"));
    }
}
