//! The real server over loopback TCP, and the real client of `weft-wire`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use weft_model::{Change, Mesh, Resource, Service, Workload};
use weft_runtime::metrics::Registry;
use weft_runtime::shared::{self, Reader, Writer};
use weft_runtime::{backoff, drain};
use weft_wire::connect::{Connector, Credentials};
use weft_wire::delta::{BACKOFF, Batch, DeltaStream, Limits, NodeIdentity, StreamSettings, StreamStatus};
use weft_xds_server::catalog::Catalog;
use weft_xds_server::serve::{Ads, AdsSettings, CapturedStore, NodeTokens, Nodes, Reports, ServeMetrics, serve};

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) catalog: Writer<Option<Catalog>>,
    pub(crate) nodes: Nodes,
    pub(crate) registry: Registry,
    pub(crate) trigger: Option<drain::Trigger>,
    pub(crate) ended: Option<JoinHandle<()>>,
    /// Of its own, so that it can be killed with everything in it.
    runtime: Option<Runtime>,
}

/// `address` with port 0 takes any; a restarted server takes its predecessor's.
pub(crate) async fn start(
    folder: &Path,
    address: SocketAddr,
    resources: Option<&[Resource]>,
    limits: Limits,
) -> Server {
    start_with(folder, address, resources, (limits, None)).await
}

/// As [`start`], with a state that is so new that reports may come in until then.
pub(crate) async fn start_with(
    folder: &Path,
    address: SocketAddr,
    resources: Option<&[Resource]>,
    (limits, reports_due): (Limits, Option<tokio::time::Instant>),
) -> Server {
    let mut listener = std::net::TcpListener::bind(address);
    for _ in 0..100 {
        if listener.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // the killed predecessor still closes its socket
        listener = std::net::TcpListener::bind(address);
    }
    let listener = listener.unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, "node-1 one\nnode-2 two\n").unwrap();
    let (trigger, watch) = drain::channel();
    let (catalog, reader) = shared::channel(resources.map(|resources| Catalog::new().update(resources).0));
    let (nodes, registry) = (Nodes::new(), Registry::new("test", "0"));
    let metrics = ServeMetrics::new(&registry);
    let (store, _) = CapturedStore::open(folder).unwrap();
    let reports = Reports::new(
        Arc::new(Mutex::new(store)),
        |uid| uid.0.ends_with("/known").then(|| "node-1".into()),
        metrics.clone(),
    );
    let settings =
        AdsSettings { catalog: reader, nodes: nodes.clone(), metrics, drain: watch.clone(), limits, reports_due };
    let authenticate = Arc::new(NodeTokens::open(&tokens).unwrap());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ended = runtime.spawn(async move {
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
        serve(incoming, authenticate, (Ads::new(settings), reports), |routes| routes, watch).await.unwrap();
    });
    let (trigger, ended, runtime) = (Some(trigger), Some(ended), Some(runtime));
    Server { address, catalog, nodes, registry, trigger, ended, runtime }
}

impl Drop for Server {
    /// As `kill -9` does: no good-bye.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    pub(crate) fn publish(&mut self, resources: &[Resource]) {
        self.catalog.update(|catalog| Some(catalog.clone().unwrap_or_default().update(resources).0));
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.registry.encode();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

pub(crate) struct Client {
    pub(crate) mesh: Arc<Mutex<Mesh>>,
    pub(crate) batches: Arc<Mutex<Vec<Batch>>>,
    pub(crate) status: Reader<StreamStatus>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn credentials(folder: &Path, token: &str) -> Credentials {
    let path = folder.join(format!("token-{token}"));
    std::fs::write(&path, token).unwrap();
    Credentials { token_file: Some(path), ..Credentials::default() }
}

pub(crate) fn client(folder: &Path, address: SocketAddr, node: &str, token: &str) -> Client {
    client_by(Connector::tcp(address), folder, node, token)
}

pub(crate) fn client_by(connector: Connector, folder: &Path, node: &str, token: &str) -> Client {
    let metadata = BTreeMap::from([("NODE_NAME".to_owned(), node.to_owned())]);
    let identity = NodeIdentity { id: format!("ztunnel~1.1.1.1~{node}.ns~ns.svc.cluster.local"), metadata };
    let mut settings = StreamSettings::everything(identity, credentials(folder, token));
    settings.backoff = backoff::Settings { cap: Duration::from_millis(100), ..BACKOFF };
    let (stream, status) = DeltaStream::new(connector, settings);
    let (mesh, batches) = (Arc::new(Mutex::new(Mesh::default())), Arc::new(Mutex::new(Vec::new())));
    let task = tokio::spawn({
        let (mesh, batches) = (mesh.clone(), batches.clone());
        async move {
            let apply = move |batch: Batch| {
                let next = mesh.lock().unwrap().apply(batch.changes.clone());
                *mesh.lock().unwrap() = next;
                batches.lock().unwrap().push(batch);
            };
            match stream.run(apply).await {}
        }
    });
    Client { mesh, batches, status, task }
}

impl Client {
    pub(crate) async fn status(&mut self, accept: impl FnMut(&StreamStatus) -> bool) -> Arc<StreamStatus> {
        let wait = tokio::time::timeout(DEADLINE, self.status.wait_until(accept));
        match wait.await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("still {:?}", self.status.load()),
        }
    }

    pub(crate) async fn names(&mut self, expected: &[&str]) {
        let names = |mesh: &Mesh| {
            let workloads = mesh.workloads().map(|workload| workload.uid.to_string());
            workloads.chain(mesh.services().map(|service| service.key.to_string())).collect::<BTreeSet<_>>()
        };
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        until(|| names(&self.mesh.lock().unwrap()) == expected).await;
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.batches.lock().unwrap().iter().flat_map(|batch| batch.changes.clone()).collect()
    }
}

pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn workload(name: &str, node: &str) -> Resource {
    let mut workload = Workload::named("c", "ns", name);
    workload.node = node.into();
    Resource::Workload(workload)
}

pub(crate) fn service(hostname: &str) -> Resource {
    Resource::Service(Service::named("ns", "short", hostname))
}
