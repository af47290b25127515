//! The live connections of one worker: what `weft connections` shows, what policy changes are checked against, and what
//! is cut when a pod goes or the agent ends.
//!
//! A connection is entered before it is checked for the first time and everything here happens on one thread, so no
//! policy change can fall between the check and the table: either the check saw the new policy, or the
//! re-check finds the connection.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::mem::replace;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use weft_hbone::{RelayEnd, RelayOutcome, Side, Traffic};
use weft_model::authz::{Connection, PolicyKey, ShadowDenial};
use weft_model::view::ConnectionRow;
use weft_model::workload::{Uid, Workload};
use weft_model::{Mesh, Reason};
use weft_runtime::budget::Budget;

use crate::pods::PodUid;
use crate::telemetry::{ConnectionRecord, Direction, Edge, WorkerTelemetry, row};
use crate::worker::limits::CONNECTION_BYTES;
use crate::worker::load::{Busy, Load};
use crate::worker::pod_load::{Counted, PodLoad, Way};
use crate::worker::recheck::{Checks, Rechecked};
use crate::worker::set_up::SetUp;

/// All live connections of one worker.
pub struct Connections {
    live: RefCell<Table>,
    checks: RefCell<Checks>,
    outstanding: Rc<RefCell<HashMap<Uid, u32>>>,
    telemetry: WorkerTelemetry,
    /// What the other workers see of this one.
    load: RefCell<Load>,
    budget: Budget,
}

/// Places that an empty table keeps; what a burst needed is given back.
const KEPT: usize = 1024;

/// The connections by number. Numbers are used again, the latest first.
#[derive(Default)]
struct Table {
    entries: Vec<Option<Rc<Shared>>>,
    free: Vec<usize>,
}

impl Table {
    fn insert(&mut self, shared: Rc<Shared>) -> usize {
        if let Some(id) = self.free.pop() {
            self.entries[id] = Some(shared);
            return id;
        }
        self.entries.push(Some(shared));
        self.entries.len() - 1
    }

    fn remove(&mut self, id: usize) {
        self.entries[id] = None;
        self.free.push(id);
        if self.free.len() == self.entries.len() && self.free.len() > KEPT {
            *self = Self::default();
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Rc<Shared>> {
        self.entries.iter().flatten()
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

/// What the connection's task and the table both see. One of these is a connection's share of the table: what only some
/// connections have is boxed.
struct Shared {
    record: RefCell<ConnectionRecord>,
    traffic: Traffic,
    /// The application is the client's end of the relay (outbound), or the server's (tunnels that came in).
    client_first: Cell<bool>,
    /// Where telemetry counts it, once it is opened.
    edge: OnceCell<Arc<Edge>>,
    mirror: RefCell<Option<Box<Mirror>>>,
    /// The workload whose policies it was checked against.
    checked: Cell<Option<Uid>>,
    pod: PodUid,
    /// Its place in the pod's count, until the task ends.
    counted: Cell<Option<Counted>>,
    /// Held until it stands.
    set_up: Cell<Option<Box<SetUp>>>,
    cut: Cell<Option<Reason>>,
    /// The task that waits to be cut.
    waiting: Cell<Option<Waker>>,
}

/// With the two counts of its `Rc` it fits the allocator's bin of 384 bytes; the next one is of 448, which is 1.3 MB with 10,000 connections.
const _: () = assert!(size_of::<Shared>() <= 384 - 2 * size_of::<usize>());

/// The server's point of view of a same-node connection, which has no second agent to tell it.
struct Mirror {
    /// The pod that is called, whose place in that pod's count it has, too.
    pod: PodUid,
    _counted: Counted,
    record: ConnectionRecord,
    edge: OnceCell<Arc<Edge>>,
}

impl Connections {
    /// An empty table.
    #[must_use]
    pub fn new(telemetry: WorkerTelemetry, budget: Budget) -> Rc<Self> {
        Rc::new(Self {
            live: RefCell::default(),
            checks: RefCell::default(),
            outstanding: Rc::default(),
            telemetry,
            budget,
            load: RefCell::default(),
        })
    }

    /// Counts the connections from now on where the other workers see it.
    pub fn count_in(&self, load: &Load) {
        self.load.replace(load.clone());
    }

    /// Enters a connection of a pod. Call it before anything is decided.
    #[must_use]
    pub fn register(self: &Rc<Self>, record: ConnectionRecord, pod: &PodUid, load: &Arc<PodLoad>) -> (Live, Cut) {
        let client_first = record.direction == Direction::Outbound;
        let way = if client_first { Way::Outbound } else { Way::Inbound };
        self.budget.take(CONNECTION_BYTES);
        let shared = Rc::new(Shared {
            record: RefCell::new(record),
            traffic: Traffic::default(),
            client_first: Cell::new(client_first),
            edge: OnceCell::new(),
            mirror: RefCell::default(),
            checked: Cell::default(),
            pod: pod.clone(),
            counted: Cell::new(Some(load.enter(way))),
            set_up: Cell::default(),
            cut: Cell::default(),
            waiting: Cell::default(),
        });
        let id = self.live.borrow_mut().insert(shared.clone());
        let cut = Cut(shared.clone());
        let busy = self.load.borrow().connection();
        (Live { id, table: self.clone(), shared, finished: false, _busy: busy }, cut)
    }

    /// Checks again every connection that a change may concern, and cuts those that are no longer permitted; see
    /// [`Rechecked`] for `wait`.
    pub fn recheck(&self, mesh: &Mesh, now: Instant, wait: Duration) -> Rechecked {
        let (failed, done) = self.checks.borrow_mut().recheck(mesh, now, wait);
        let live = self.live.borrow();
        let failed = failed.iter().filter_map(|id| live.entries.get(*id)?.as_ref());
        Rechecked { cut: cut_each(failed, Reason::PolicyChanged), ..done }
    }

    /// Cuts the connections of a pod.
    pub fn cut_pod(&self, pod: &PodUid, why: Reason) -> usize {
        let of_other = |shared: &Shared| shared.mirror.borrow().as_ref().is_some_and(|mirror| mirror.pod == *pod);
        self.cut_where(why, |shared| shared.pod == *pod || of_other(shared))
    }

    /// Cuts all.
    pub fn cut_all(&self, why: Reason) -> usize {
        self.cut_where(why, |_| true)
    }

    fn cut_where(&self, why: Reason, which: impl Fn(&Shared) -> bool) -> usize {
        cut_each(self.live.borrow().iter().filter(|shared| which(shared)), why)
    }

    /// How many connections of this worker an endpoint has now.
    #[must_use]
    pub fn outstanding(&self, uid: &Uid) -> u32 {
        self.outstanding.borrow().get(uid).copied().unwrap_or_default()
    }

    /// Counts one more connection to an endpoint, for as long as the guard lives.
    #[must_use]
    pub fn count_endpoint(&self, uid: &Uid) -> Outstanding {
        *self.outstanding.borrow_mut().entry(uid.clone()).or_default() += 1;
        Outstanding { counts: self.outstanding.clone(), uid: uid.clone() }
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.borrow().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.borrow().len() == 0
    }

    /// The table, for `weft connections`.
    #[must_use]
    pub fn rows(&self) -> Vec<ConnectionRow> {
        let live = self.live.borrow();
        let of = |shared: &Shared| {
            let (sent, received) = shared.bytes();
            ConnectionRow { sent, received, ..row(&shared.record.borrow()) }
        };
        live.iter().map(|shared| of(shared)).collect()
    }

    /// Tells telemetry what long connections have carried since the last time.
    pub fn report_progress(&self) {
        for shared in self.live.borrow().iter() {
            let Some(edge) = shared.edge.get() else { continue };
            let (sent, received) = shared.untold();
            if (sent, received) == (0, 0) {
                continue;
            }
            self.telemetry.progress(edge, sent, received);
            let mirrored = shared.mirror.borrow();
            let mirrored = mirrored.as_ref().and_then(|mirror| mirror.edge.get());
            mirrored.into_iter().for_each(|edge| self.telemetry.progress(edge, sent, received));
        }
    }
}

impl Shared {
    /// From the client to the server, and back.
    fn bytes(&self) -> (u64, u64) {
        let (near, far) = (self.traffic.sent(), self.traffic.received());
        if self.client_first.get() { (near, far) } else { (far, near) }
    }

    /// What was carried since the last call.
    fn untold(&self) -> (u64, u64) {
        let (sent, received) = self.bytes();
        let record = &mut *self.record.borrow_mut();
        let before = (replace(&mut record.sent, sent), replace(&mut record.received, received));
        (sent.saturating_sub(before.0), received.saturating_sub(before.1))
    }
}

/// Counts one connection at an endpoint.
#[derive(Debug)]
pub struct Outstanding {
    counts: Rc<RefCell<HashMap<Uid, u32>>>,
    uid: Uid,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// One connection, held by its task. Ends by [`Live::finish`] or [`Live::refuse`]; one that is dropped (its task was
/// cancelled) leaves the table as ended by the drain.
pub struct Live {
    id: usize,
    table: Rc<Connections>,
    shared: Rc<Shared>,
    finished: bool,
    _busy: Busy,
}

/// Tells a connection's task that it must end.
pub struct Cut(Rc<Shared>);

impl Cut {
    /// Completes when the connection must end, with the reason. Cancel safe, and may be called again; by one task at a time.
    pub async fn wait(&mut self) -> Reason {
        self.comes().await
    }

    /// As [`Self::wait`], in one word of memory.
    pub fn comes(&self) -> impl Future<Output = Reason> + Unpin {
        poll_fn(|cx| self.poll(cx))
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.0.cut.get() {
            return Poll::Ready(reason);
        }
        let waker = self.0.waiting.take().filter(|waker| waker.will_wake(cx.waker()));
        self.0.waiting.set(Some(waker.unwrap_or_else(|| cx.waker().clone())));
        Poll::Pending
    }
}

impl Live {
    /// Adds what has become known.
    pub fn note(&self, change: impl FnOnce(&mut ConnectionRecord)) {
        change(&mut self.shared.record.borrow_mut());
    }

    /// What policy said. On a same-node connection it is the server's side that says it, so a shadowed denial counts once.
    pub fn note_verdict(&self, policy: Option<PolicyKey>, shadow: Option<ShadowDenial>) {
        let mut record = self.shared.record.borrow_mut();
        let policy = policy.map(Box::new);
        record.policy.clone_from(&policy);
        let shadow = shadow.map(Box::new);
        match self.shared.mirror.borrow_mut().as_mut() {
            Some(mirror) => (mirror.record.policy, mirror.record.shadow) = (policy, shadow),
            None => record.shadow = shadow,
        }
    }

    /// What is known.
    #[must_use]
    pub fn record(&self) -> Ref<'_, ConnectionRecord> {
        self.shared.record.borrow()
    }

    /// Its set-up counts as such until it stands or ends.
    pub fn sets_up(&self, set_up: SetUp) {
        self.shared.set_up.set(Some(Box::new(set_up)));
    }

    /// This was checked against the policies of `workload`, and is from now on whenever they change.
    pub fn checked(&self, workload: &Arc<Workload>, connection: Connection) {
        self.unchecked();
        self.table.checks.borrow_mut().enter(self.id, workload, connection);
        self.shared.checked.set(Some(workload.uid.clone()));
    }

    fn unchecked(&self) {
        if let Some(workload) = self.shared.checked.take() {
            self.table.checks.borrow_mut().leave(self.id, &workload);
        }
    }

    /// The other pod of this node no longer concerns this connection: its application failed and another endpoint is tried.
    pub fn leave_other_pod(&self) {
        self.unchecked();
        *self.shared.mirror.borrow_mut() = None;
    }

    /// The connection goes to this other pod of the node: it is cut with it, too, counts as a call to it, and telemetry is told the
    /// server's side of it.
    pub fn mirrored_by(&self, record: ConnectionRecord, pod: &PodUid, load: &Arc<PodLoad>) {
        let (pod, counted) = (pod.clone(), load.enter(Way::Inbound));
        *self.shared.mirror.borrow_mut() =
            Some(Box::new(Mirror { pod, _counted: counted, record, edge: OnceCell::new() }));
    }

    /// The first end of the relay is the client's, whatever the direction.
    pub fn client_comes_first(&self) {
        self.shared.client_first.set(true);
    }

    /// Both ends are connected: bytes may flow.
    pub fn opened(&self) {
        self.shared.set_up.take();
        let telemetry = &self.table.telemetry;
        self.shared.edge.get_or_init(|| telemetry.opened(&self.shared.record.borrow()));
        if let Some(mirror) = &*self.shared.mirror.borrow() {
            mirror.edge.get_or_init(|| telemetry.opened(&mirror.record));
        }
    }

    /// The counters for the relay.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// The relay is over.
    pub fn finish(mut self, outcome: &RelayOutcome<Reason>) {
        let (reason, detail) = match &outcome.end {
            RelayEnd::Orderly => (None, None),
            RelayEnd::ResetBy(side) => (Some(Reason::Reset), Some(format!("reset by the {}", self.name(*side)))),
            RelayEnd::Timeout(side) => (Some(Reason::Reset), Some(format!("no answer from the {}", self.name(*side)))),
            RelayEnd::Cancelled(reason) => (Some(*reason), None),
        };
        self.end(reason, detail);
    }

    fn name(&self, side: Side) -> &'static str {
        if (side == Side::App) == self.shared.client_first.get() { "client" } else { "server" }
    }

    /// The connection never came to be.
    pub fn refuse(mut self, reason: Reason, detail: Option<String>) {
        self.end(Some(reason), detail);
    }

    fn end(&mut self, reason: Option<Reason>, detail: Option<String>) {
        self.finished = true;
        let bytes = self.shared.bytes();
        let (sent, received) = self.shared.untold();
        let detail = detail.map(String::into_boxed_str);
        let close = |mut record: ConnectionRecord, edge: Option<&Arc<Edge>>| {
            (record.sent, record.received) = bytes;
            record.reason = reason;
            record.detail.clone_from(&detail);
            match edge {
                Some(edge) => self.table.telemetry.closed(edge, record, sent, received),
                None => self.table.telemetry.refused(record),
            }
        };
        // Nothing looks at the record any more: who ends it drops it.
        close(self.shared.record.borrow_mut().take(), self.shared.edge.get());
        if let Some(mirror) = self.shared.mirror.take() {
            close(mirror.record, mirror.edge.get());
        }
    }
}

/// How many there were to cut.
fn cut_each<'a>(connections: impl Iterator<Item = &'a Rc<Shared>>, why: Reason) -> usize {
    let cut = connections.filter(|shared| shared.cut.get().is_none());
    cut.map(|shared| {
        shared.cut.set(Some(why));
        shared.waiting.take().into_iter().for_each(Waker::wake);
    })
    .count()
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.finished {
            self.end(Some(Reason::Draining), None);
        }
        // The table's hold on it goes with the task's, but a limit that was reached must not bind for longer than it is.
        self.unchecked();
        drop((self.shared.counted.take(), self.shared.mirror.take(), self.shared.set_up.take()));
        self.table.budget.release(CONNECTION_BYTES);
        self.table.live.borrow_mut().remove(self.id);
    }
}
