//! What one data worker owns and its tasks share. Lives on one thread: nothing in here is locked or sent.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_hbone::{Buffers, Pool, PoolDriver};
use weft_model::{Mesh, Reason, Workload};
use weft_runtime::shared::CachedReader;

use crate::environment::Environment;
use crate::handover::PodInfo;
use crate::telemetry::WorkerTelemetry;
use crate::worker::connections::Connections;
use crate::worker::credentials::TlsConfigs;
use crate::worker::lifetimes::Lifetimes;
use crate::worker::own::own_workload;
use crate::worker::reserve::Reserve;
use crate::worker::served::ServedPod;
use crate::worker::sockets::{Ask, Sockets};
use crate::worker::tunnels::{PeerWatch, TunnelDialError, TunnelDialer, TunnelKey};
use crate::worker::turns::{Rounds, Turns};

/// Ports that dials to applications come from, besides the client's address: outside the range that clients use
/// themselves (`docs/capture.md`).
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;

/// One worker's belongings.
pub struct Shard {
    /// What everybody reads.
    pub environment: Environment,
    /// Sockets to dial with.
    pub sockets: Rc<Sockets>,
    /// Live connections.
    pub connections: Rc<Connections>,
    /// TLS configurations.
    pub tls: TlsConfigs,
    /// Tunnels that go out.
    pub pool: Pool<TunnelKey, TunnelDialError>,
    /// Until when those take new ones.
    pub lifetimes: Rc<Lifetimes<TunnelKey>>,
    /// Whose connections relay in this round.
    pub rounds: Rc<Rounds>,
    /// The read buffer.
    pub buffers: Buffers,
    /// Counters and log.
    pub telemetry: WorkerTelemetry,
    /// The mesh as it was read last: while it does not change, reading it touches nothing that other workers touch.
    latest_mesh: RefCell<CachedReader<Mesh>>,
    /// The descriptor for the moment when there is none left.
    pub reserve: Reserve,
    next_port: Cell<u16>,
}

/// One pod as a worker serves it.
pub struct Pod {
    /// What the capture half and the control thread know of it.
    pub served: ServedPod,
    /// This agent takes nothing new for the pod: a successor does, or nobody. Tunnels are told to go elsewhere.
    pub retired: CancellationToken,
    /// Everything of the pod ends now.
    pub gone: CancellationToken,
}

impl Pod {
    /// Shorthand.
    #[must_use]
    pub fn info(&self) -> &PodInfo {
        &self.served.info
    }
}

impl Shard {
    /// A worker's belongings, and what must be driven for its pool to work.
    pub fn new(
        environment: Environment,
        telemetry: WorkerTelemetry,
        ask: Ask,
    ) -> (Rc<Self>, PoolDriver<TunnelKey, TunnelDialer>) {
        let sockets = Rc::new(Sockets::new(ask).within(environment.settings.limits.clone()));
        let tls = TlsConfigs::new(environment.credentials.clone());
        let lifetimes = Rc::new(Lifetimes::default());
        let dialer = TunnelDialer {
            sockets: sockets.clone(),
            tls: tls.clone(),
            lifetimes: lifetimes.clone(),
            settings: environment.settings.clone(),
            peers: PeerWatch {
                health: environment.health.clone(),
                mesh: environment.mesh.clone(),
                network: environment.node.network.clone(),
            },
        };
        let (pool, driver) = Pool::new(dialer, environment.settings.pool.clone());
        let shard = Self {
            sockets,
            connections: Connections::new(telemetry.clone(), environment.settings.limits.budget.clone()),
            tls,
            pool,
            lifetimes,
            rounds: Rounds::new(environment.settings.company.clone()),
            buffers: Buffers::new(),
            telemetry,
            latest_mesh: RefCell::new(environment.mesh.cached()),
            reserve: Reserve::default(),
            next_port: Cell::new(rand::random_range(SOURCE_PORTS)),
            environment,
        };
        (Rc::new(shard), driver)
    }

    /// The turns of whoever calls from that address.
    pub fn turns_of(&self, client: SocketAddr) -> Rc<Turns> {
        self.rounds.of(client.ip().to_canonical())
    }

    /// The next port to dial an application from. They go round, so that one is used again as late as possible.
    pub fn source_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(if port == *SOURCE_PORTS.end() { *SOURCE_PORTS.start() } else { port + 1 });
        port
    }

    /// One consistent version of the mesh for one decision.
    pub fn mesh<R>(&self, look: impl FnOnce(&Mesh) -> R) -> R {
        match self.latest_mesh.try_borrow_mut() {
            Ok(mut mesh) => mesh.read(look),
            // Asked again from within a decision.
            Err(_) => self.environment.mesh.read(look),
        }
    }

    /// The pod's own workload; waits for the control plane to name it.
    ///
    /// # Errors
    /// [`Reason::UnknownWorkload`] after the settings' patience.
    pub async fn workload_of(&self, pod: &Pod) -> Result<Arc<Workload>, Reason> {
        let node = &self.environment.node;
        let find = |mesh: &Mesh| own_workload(mesh, node, pod.info()).cloned();
        if let Some(workload) = self.mesh(find) {
            return Ok(workload);
        }
        let mut mesh = self.environment.mesh.clone();
        let patience: Duration = self.environment.settings.workload_wait;
        let known = tokio::time::timeout(patience, mesh.wait_until(|mesh| find(mesh).is_some())).await;
        let known = known.ok().and_then(Result::ok).and_then(|mesh| find(&mesh));
        known.ok_or(Reason::UnknownWorkload)
    }
}
