//! One data worker: the listeners of every pod, their connections, and a pool of tunnels, all on one thread.
//!
//! ```text
//! control thread --WorkerCommand--> Worker --spawn_local--> accept_all (6 per pod)
//!                                     |                        '--> one task per connection or tunnel
//!                                     '--> pool driver, re-check on change, progress every 5 s
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_model::Reason;
use weft_model::view::ConnectionRow;

use crate::environment::Environment;
use crate::handover::{Family, WorkerListeners};
use crate::inbound::{serve_plaintext, serve_tunnels};
use crate::outbound::serve_outbound;
use crate::pods::PodUid;
use crate::telemetry::WorkerTelemetry;
use crate::worker::accept::{Ends, accept_all};
use crate::worker::gate::Gate;
use crate::worker::load::{Accepted, Busy, Peers};
use crate::worker::pod_load::Way;
use crate::worker::served::ServedPod;
use crate::worker::set_up::SetUp;
use crate::worker::shard::{Pod, Shard};
use crate::worker::sockets::{Ask, tune};

/// How often telemetry learns what long connections carry: one third of the usual 15 s between two scrapes.
const PROGRESS: Duration = Duration::from_secs(5);
/// Least rest between two re-checks. One that concerns 10,000 connections takes about 5 ms, so a policy that changes all the time
/// costs a quarter of a worker at most, and takes effect within 20 ms. A change that concerns no pod of the node costs some
/// microseconds for each of these.
const RECHECK_REST: Duration = Duration::from_millis(20);
/// How long connections that were cut may take to go, and idle tunnels to say GOAWAY, before the worker ends.
const LAST_REST: Duration = Duration::from_millis(500);

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Serve this pod, new or changed: its new listeners take the place of the old ones.
    AddPod {
        /// The pod.
        pod: ServedPod,
        /// This worker's listeners there.
        listeners: WorkerListeners,
    },
    /// End everything of this pod.
    RemovePod {
        /// Which pod.
        uid: PodUid,
    },
    /// The answer to a question for sockets.
    Sockets {
        /// For which pod.
        uid: PodUid,
        /// Which family.
        family: Family,
        /// None: the pod is not there.
        sockets: Vec<OwnedFd>,
    },
    /// The answer came and could not be taken: this process has no descriptors.
    SocketsLost {
        /// For which pod.
        uid: PodUid,
        /// Which family.
        family: Family,
    },
    /// Asks for the table of live connections.
    Connections(oneshot::Sender<Vec<ConnectionRow>>),
    /// What another worker has accepted and this one, which is less busy, serves.
    Given(Given),
    /// Take nothing new, for any pod, until it is added again.
    Retire,
    /// Empty the listeners of every pod and close them: nobody keeps them for a successor.
    Close,
    /// Take nothing new, finish what is there, cut the rest at the deadline, then end.
    Drain {
        /// When.
        deadline: Instant,
    },
}

/// What one worker gives to another.
#[derive(Debug)]
pub struct Given {
    /// The pod whose listener took it.
    pub uid: PodUid,
    /// Which of its listeners.
    pub way: Way,
    /// The accepted socket.
    pub stream: std::net::TcpStream,
    /// Who came.
    pub client: SocketAddr,
    /// Its handshake counts from its acceptance on.
    pub set_up: SetUp,
    /// It counts as the taker's from the moment it is given.
    pub busy: Busy,
}

/// Given ones of pods that this worker has not been told of yet: another one was, a moment before.
const EARLY: usize = 64;

/// A worker, before it runs.
pub struct Worker {
    shard: Rc<Shard>,
    mesh_changes: weft_runtime::shared::Reader<weft_model::Mesh>,
    pods: HashMap<PodUid, Attendance>,
    tasks: TaskTracker,
    /// The other workers, which may take an accepted tunnel.
    peers: Rc<WorkerPeers>,
    early: Vec<Given>,
    /// No pod is added any more.
    draining: bool,
    /// The pool's driver; its end is the end of all tunnels.
    pool: tokio::task::JoinHandle<()>,
}

/// The other workers of the agent. Weak: a worker ends when nobody else can command it any more.
pub type WorkerPeers = Peers<mpsc::WeakUnboundedSender<WorkerCommand>>;

/// A pod that the worker attends to.
struct Attendance {
    pod: Rc<Pod>,
    replaced: CancellationToken,
}

/// Why the loop of a worker goes on or ends.
enum Next {
    GoOn,
    Drain(Instant),
}

impl Worker {
    /// A worker. Must be made inside the thread's `LocalRuntime` or `LocalSet`: it spawns there.
    #[must_use]
    pub fn new(environment: Environment, telemetry: WorkerTelemetry, ask: Ask) -> Self {
        let mesh_changes = environment.mesh.clone();
        let (shard, driver) = Shard::new(environment, telemetry, ask);
        let pool = tokio::task::spawn_local(driver.run());
        tokio::task::spawn_local(shard.rounds.clone().run());
        let (pods, tasks, peers) = (HashMap::new(), TaskTracker::new(), Rc::new(Peers::none()));
        Self { shard, mesh_changes, pods, tasks, peers, early: Vec::new(), draining: false, pool }
    }

    /// As one of several: tunnels that it accepts go to the least busy one.
    #[must_use]
    pub fn among(mut self, peers: WorkerPeers) -> Self {
        self.shard.connections.count_in(peers.own());
        self.peers = Rc::new(peers);
        self
    }

    /// Runs until it is drained, or until nobody can command it any more (then it ends at once).
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
        let mut progress = interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes_end = false;
        let mut recheck_at: Option<Instant> = None;
        let mut checked_at = Instant::now();
        let mut drain: Option<Instant> = None;
        loop {
            tokio::select! {
                command = commands.recv() => match command.map(|command| self.obey(command)) {
                    Some(Next::GoOn) => {}
                    Some(Next::Drain(deadline)) => drain = Some(deadline),
                    None => break,
                },
                changed = self.mesh_changes.changed(), if !changes_end => {
                    changes_end = changed.is_err();
                    let soon = checked_at + RECHECK_REST;
                    recheck_at = Some(recheck_at.map_or(soon, |planned| planned.min(soon)));
                }
                () = sleep_until(recheck_at.unwrap_or(checked_at)), if recheck_at.is_some() => {
                    checked_at = Instant::now();
                    recheck_at = self.recheck(checked_at);
                }
                _ = progress.tick() => self.now_and_then(),
                () = self.tasks.wait(), if drain.is_some() => break,
                () = sleep_until(drain.unwrap_or(checked_at)), if drain.is_some() => break,
                _ = &mut self.pool => {
                    // It panicked, or somebody drained it: without tunnels this worker would refuse all it is given.
                    tracing::error!("the pool of tunnels ended by itself; so does this worker");
                    break;
                }
            }
        }
        self.end().await;
    }

    /// Says when to check again, if no change of the mesh comes first.
    fn recheck(&self, now: Instant) -> Option<Instant> {
        let wait = self.shard.environment.settings.policy_wait;
        let done = self.shard.mesh(|mesh| self.shard.connections.recheck(mesh, now, wait));
        if done.cut > 0 {
            self.shard.rounds.release();
            tracing::info!(cut = done.cut, "connections cut: a policy or label changed");
        }
        done.waiting.then(|| now + wait)
    }

    /// What is looked at every [`PROGRESS`].
    fn now_and_then(&self) {
        let Shard { connections, pool, lifetimes, environment, rounds, .. } = &*self.shard;
        connections.report_progress();
        rounds.tidy();
        environment.health.tidy();
        // Before the peer says so: a tunnel that it refuses meanwhile would be tried once more.
        let over = lifetimes.over(SystemTime::now(), PROGRESS);
        if !over.is_empty() {
            tracing::debug!(keys = over.len(), "certificates of tunnel connections end: new tunnels go to new ones");
            pool.retire_where(|key| over.contains(key));
        }
        lifetimes.tidy(|| pool.counts().into_iter().map(|one| one.key).collect());
    }

    fn obey(&mut self, command: WorkerCommand) -> Next {
        match command {
            // A successor serves what comes now; the capture half keeps these listeners open for it.
            WorkerCommand::AddPod { .. } if self.draining => {}
            WorkerCommand::AddPod { pod, listeners } => self.add(pod, listeners),
            WorkerCommand::RemovePod { uid } => self.remove(&uid),
            WorkerCommand::Sockets { uid, family, sockets } => {
                if self.pods.contains_key(&uid) {
                    self.shard.sockets.supply(&uid, family, sockets);
                }
            }
            WorkerCommand::SocketsLost { uid, family } => {
                if self.pods.contains_key(&uid) {
                    self.shard.sockets.lost(&uid, family);
                }
            }
            WorkerCommand::Given(given) => self.take_over(given),
            // Whoever asked may have gone meanwhile.
            WorkerCommand::Connections(reply) => drop(reply.send(self.shard.connections.rows())),
            WorkerCommand::Retire => self.retire(),
            WorkerCommand::Close => self.pods.values().for_each(|attendance| attendance.replaced.cancel()),
            WorkerCommand::Drain { deadline } => {
                self.retire();
                self.draining = true;
                self.early.clear();
                self.tasks.close();
                return Next::Drain(deadline);
            }
        }
        Next::GoOn
    }

    fn add(&mut self, served: ServedPod, listeners: WorkerListeners) {
        let uid = served.info.uid.clone();
        let old = self.pods.remove(&uid);
        // Tunnels and connections of the pod go on over a new hand-over, unless this agent had retired from it.
        let token =
            |kept: Option<&CancellationToken>| kept.filter(|token| !token.is_cancelled()).cloned().unwrap_or_default();
        let retired = token(old.as_ref().map(|old| &old.pod.retired));
        let gone = token(old.as_ref().map(|old| &old.pod.gone));
        let attendance = Attendance { pod: Rc::new(Pod { served, retired, gone }), replaced: CancellationToken::new() };
        self.listen(&attendance, listeners);
        // After the new ones stand, so that no moment is without.
        if let Some(old) = old {
            old.replaced.cancel();
        }
        self.shard.sockets.renew(&uid);
        let of_this_pod = self.early.extract_if(.., |given| given.uid == uid);
        let early: Vec<Given> = of_this_pod.collect();
        self.pods.insert(uid, attendance);
        early.into_iter().for_each(|given| self.take_over(given));
    }

    fn listen(&self, attendance: &Attendance, listeners: WorkerListeners) {
        let (shard, pod, tasks) = (&self.shard, &attendance.pod, &self.tasks);
        for listener in listeners.outbound {
            let (shard, pod, tracker, peers) = (shard.clone(), pod.clone(), tasks.clone(), self.peers.clone());
            self.accept(attendance, listener, Way::Outbound, move |stream, client, set_up| {
                let at = (&pod.info().uid, Way::Outbound);
                let Some((stream, set_up)) = keep_or_give(&peers, at, (stream, client), set_up) else { return };
                tracker.spawn_local(serve_outbound(shard.clone(), pod.clone(), (stream, client), set_up));
            });
        }
        for listener in listeners.inbound {
            let (shard, pod, tracker) = (shard.clone(), pod.clone(), tasks.clone());
            self.accept(attendance, listener, Way::Inbound, move |stream, client, set_up| {
                tracker.spawn_local(serve_plaintext(shard.clone(), pod.clone(), (stream, client), set_up));
            });
        }
        for listener in listeners.hbone {
            let (shard, pod, tracker, peers) = (shard.clone(), pod.clone(), tasks.clone(), self.peers.clone());
            self.accept(attendance, listener, Way::Tunnel, move |stream, client, set_up| {
                let at = (&pod.info().uid, Way::Tunnel);
                let Some((stream, set_up)) = keep_or_give(&peers, at, (stream, client), set_up) else { return };
                let busy = peers.own().tunnel();
                let tunnels = serve_tunnels(shard.clone(), pod.clone(), (stream, client), set_up, tracker.clone());
                tracker.spawn_local(busy_while(busy, tunnels));
            });
        }
    }

    /// Serves what another worker has accepted. Where the pod is served no more it is reset, as it would have been there.
    fn take_over(&mut self, given: Given) {
        let Some(attendance) = self.pods.get(&given.uid) else {
            if !self.draining && self.early.len() < EARLY {
                self.early.push(given);
            }
            return;
        };
        let Given { way, stream, client, set_up, busy, .. } = given;
        if attendance.pod.retired.is_cancelled() {
            return;
        }
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let (shard, pod, accepted) = (self.shard.clone(), attendance.pod.clone(), (stream, client));
        match way {
            Way::Tunnel => {
                let tunnels = serve_tunnels(shard, pod, accepted, set_up, self.tasks.clone());
                self.tasks.spawn_local(busy_while(busy, tunnels));
            }
            // These count themselves.
            Way::Outbound => drop(self.tasks.spawn_local(serve_outbound(shard, pod, accepted, set_up))),
            Way::Inbound => drop(self.tasks.spawn_local(serve_plaintext(shard, pod, accepted, set_up))),
        }
    }

    fn accept(
        &self,
        attendance: &Attendance,
        listener: std::net::TcpListener,
        way: Way,
        take: impl Fn(TcpStream, SocketAddr, SetUp) + 'static,
    ) {
        let ends = Ends { replaced: attendance.replaced.clone(), retired: attendance.pod.retired.clone() };
        let gate = Gate::new(self.shard.clone(), attendance.pod.clone(), way);
        // The capture half makes them so; but a blocking listener would stop the whole worker, and what is accepted has the
        // options of its listener.
        let ready = listener.set_nonblocking(true).and_then(|()| tune(&listener));
        match ready.and_then(|()| TcpListener::from_std(listener)) {
            Ok(listener) => {
                self.tasks.spawn_local(accept_all(listener, ends, gate, take));
            }
            Err(error) => {
                tracing::error!(pod = %attendance.pod.info().uid, %error, "a listener of this pod is not served")
            }
        }
    }

    fn remove(&mut self, uid: &PodUid) {
        if let Some(attendance) = self.pods.remove(uid) {
            attendance.pod.retired.cancel();
            attendance.pod.gone.cancel();
        }
        self.early.retain(|given| given.uid != *uid);
        self.shard.connections.cut_pod(uid, Reason::WorkloadGone);
        self.shard.rounds.release();
        self.shard.pool.retire_where(|key| key.pod == *uid);
        self.shard.sockets.forget(uid);
    }

    fn retire(&self) {
        self.pods.values().for_each(|attendance| attendance.pod.retired.cancel());
    }

    /// Cuts what is left and lets the cut be seen: resets on both sides, GOAWAY on idle tunnels.
    async fn end(mut self) {
        self.retire();
        self.tasks.close();
        let cut = self.shard.connections.cut_all(Reason::Draining);
        self.shard.rounds.release();
        if cut > 0 {
            tracing::info!(cut, "connections cut: they outlived the drain deadline");
        }
        self.pods.values().for_each(|attendance| attendance.pod.gone.cancel());
        self.shard.pool.drain();
        let ended = timeout(LAST_REST, async {
            self.tasks.wait().await;
            if !self.pool.is_finished() {
                // An error is a panic of the driver, which the panic hook has logged.
                let _ = (&mut self.pool).await;
            }
        });
        if ended.await.is_err() {
            self.pool.abort();
        }
    }
}

/// Gives what was accepted to a worker that is less busy, or says that it stays here.
fn keep_or_give(
    peers: &WorkerPeers,
    (uid, way): (&PodUid, Way),
    (stream, client): (TcpStream, SocketAddr),
    set_up: SetUp,
) -> Option<(TcpStream, SetUp)> {
    let what = if way == Way::Tunnel { Accepted::Tunnel } else { Accepted::Connection };
    let other = peers.less_busy(what).and_then(|(other, load)| Some((other.upgrade()?, load)));
    let Some((other, load)) = other else { return Some((stream, set_up)) };
    // A socket that cannot be taken out of this thread's event queue is gone.
    let stream = stream.into_std().ok()?;
    let busy = if way == Way::Tunnel { load.tunnel() } else { load.connection() };
    // A worker that has just ended resets it; the peer dials again.
    let _ended = other.send(WorkerCommand::Given(Given { uid: uid.clone(), way, stream, client, set_up, busy }));
    None
}

async fn busy_while(busy: Busy, what: impl Future<Output = ()>) {
    what.await;
    drop(busy);
}

#[cfg(test)]
mod tests {
    use super::{serve_outbound, serve_plaintext};

    fn task<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Bytes of a task are bytes of every idle connection: what is set up, and what relays, is boxed (`steps.rs`).
    #[test]
    fn a_connections_task_stays_small() {
        assert!(task(serve_outbound) <= 16, "{}", task(serve_outbound));
        assert!(task(serve_plaintext) <= 16, "{}", task(serve_plaintext));
    }
}
