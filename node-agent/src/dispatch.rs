//! The control side of the proxy half: what the capture half tells becomes commands for the workers and the published
//! list of served pods; what the workers need is asked for, and the answer goes back to who asked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use weft_runtime::readiness::Guard;
use weft_runtime::shared::{Reader, Writer, channel};

use crate::handover::{Event, Family, HandoverHandle, PodInfo, WorkerListeners};
use crate::node_info::NodeInfo;
use crate::pods::PodUid;
use crate::worker::run::WorkerCommand;
use crate::worker::served::{Served, ServedPod};
use crate::worker::sockets::Ask;

/// How often a leaving pod's count is looked at: the capture half waits for 0, and half a second more does not matter.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// A worker's question for dial sockets.
#[derive(Debug)]
pub struct SocketQuestion {
    worker: usize,
    uid: PodUid,
    family: Family,
    count: usize,
}

/// Puts a worker's questions into the dispatcher's queue.
#[must_use]
pub fn ask_through(questions: mpsc::UnboundedSender<SocketQuestion>, worker: usize) -> Ask {
    Box::new(move |uid, family, count| {
        // The dispatcher ends only with the program.
        let _ended = questions.send(SocketQuestion { worker, uid: uid.clone(), family, count });
    })
}

/// Told of every pod that comes and goes: the certificate store, for example.
pub trait PodObserver {
    /// The pod is served from now on. Called once for each uid.
    fn came(&self, pod: &ServedPod);

    /// It is not any more.
    fn went(&self, pod: &ServedPod);
}

/// See the [module](self).
pub struct Dispatcher<O> {
    node: Arc<NodeInfo>,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    handover: HandoverHandle,
    served: Writer<Served>,
    observer: O,
    /// Who asked for sockets and was not answered yet, in order.
    asked: HashMap<(PodUid, Family), VecDeque<usize>>,
    /// Pods that the current conversation has named.
    named: HashSet<PodUid>,
    reported: HashMap<PodUid, u64>,
    draining: bool,
    /// Why the capture half is away, as it was logged.
    away: Option<String>,
    /// Dropped when the capture half has named every pod for the first time.
    first_snapshot: Option<Guard>,
}

/// An empty list of served pods: the writer for the [`Dispatcher`], the reader for everybody else.
#[must_use]
pub fn nobody_served() -> (Writer<Served>, Reader<Served>) {
    channel(Served::default())
}

impl<O: PodObserver> Dispatcher<O> {
    /// A dispatcher for these workers, in the order of their numbers.
    pub fn new(
        node: Arc<NodeInfo>,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
        handover: HandoverHandle,
        served: Writer<Served>,
        observer: O,
    ) -> Self {
        let (asked, named, reported) = (HashMap::new(), HashSet::new(), HashMap::new());
        let (draining, away, first_snapshot) = (false, None, None);
        Self { node, workers, handover, served, observer, asked, named, reported, draining, away, first_snapshot }
    }

    /// The program is not ready before the capture half has named every pod once.
    #[must_use]
    pub fn on_first_snapshot(self, guard: Guard) -> Self {
        Self { first_snapshot: Some(guard), ..self }
    }

    /// Dispatches until the conversation with the capture half is over for good. `draining`: the proxy takes nothing new.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut questions: mpsc::UnboundedReceiver<SocketQuestion>,
        draining: CancellationToken,
    ) {
        let mut count = interval(COUNT_EVERY);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                Some(question) = questions.recv() => self.ask(question),
                () = draining.cancelled(), if !self.draining => {
                    self.draining = true;
                    self.handover.draining();
                }
                _ = count.tick() => self.report(),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Pod { info, listeners } => self.add(info, listeners),
            Event::Release { uid } => {
                self.served.update(|served| served.leaving(&uid));
                self.reported.remove(&uid);
                self.handover.ack(&uid, Ok(()));
                self.report();
            }
            Event::Remove { uid } => {
                self.remove(&uid);
                self.handover.ack(&uid, Ok(()));
            }
            Event::SnapshotSent => {
                if self.away.take().is_some() {
                    tracing::info!("capture half is there");
                }
                self.forget_unnamed();
                let served = self.served.load();
                if !served.is_complete() || !served.is_in_touch() {
                    self.served.update(|served| served.completed().in_touch(true));
                }
                self.first_snapshot = None;
            }
            // An answer that nobody waits for any more still serves somebody.
            Event::Sockets { uid, family, sockets } => {
                let Some(worker) = self.who_asked(&uid, family) else { return };
                send(worker, WorkerCommand::Sockets { uid, family, sockets });
            }
            Event::SocketsLost { uid, family } => {
                let Some(worker) = self.who_asked(&uid, family) else { return };
                send(worker, WorkerCommand::SocketsLost { uid, family });
            }
            Event::Retire => {
                tracing::info!("a newer proxy has taken every pod; finishing what is here");
                self.served.update(Served::retired);
                self.workers.iter().for_each(|worker| send(worker, WorkerCommand::Retire));
            }
            Event::Condition(condition) => self.served.update(|served| served.in_condition(condition)),
            Event::Disconnected { reason } => {
                // Said again only when it is news: the client tries every two seconds for as long as it takes.
                if self.away.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "capture half is away; pods are served with what is there");
                }
                self.away = Some(reason);
                if self.served.load().is_in_touch() {
                    self.served.update(|served| served.in_touch(false));
                }
                self.asked.clear();
                self.named.clear();
            }
        }
    }

    fn add(&mut self, info: PodInfo, listeners: Vec<WorkerListeners>) {
        let uid = info.uid.clone();
        let is_new = self.served.load().pod(&uid).is_none();
        let next = match self.served.load().with(&self.node, Arc::new(info)) {
            Ok(next) => next,
            Err(error) => return self.handover.ack(&uid, Err(error.to_string())),
        };
        let pod = next.pod(&uid).cloned();
        self.served.publish(next);
        let Some(pod) = pod else { return };
        if is_new {
            self.observer.came(&pod);
        }
        for (worker, listeners) in self.workers.iter().zip(listeners) {
            send(worker, WorkerCommand::AddPod { pod: pod.clone(), listeners });
        }
        self.named.insert(uid.clone());
        self.handover.ack(&uid, Ok(()));
    }

    fn remove(&mut self, uid: &PodUid) {
        let pod = self.served.load().pod(uid).cloned();
        self.served.update(|served| served.without(uid));
        for worker in &self.workers {
            send(worker, WorkerCommand::RemovePod { uid: uid.clone() });
        }
        self.named.remove(uid);
        self.reported.remove(uid);
        self.asked.retain(|(owner, _), _| owner != uid);
        if let Some(pod) = pod {
            self.observer.went(&pod);
        }
    }

    /// What a whole snapshot does not name is captured no more.
    fn forget_unnamed(&mut self) {
        let served = self.served.load();
        let unnamed = served.pods().filter(|pod| !self.named.contains(&pod.info.uid));
        let unnamed: Vec<PodUid> = unnamed.map(|pod| pod.info.uid.clone()).collect();
        for uid in unnamed {
            self.remove(&uid);
        }
    }

    /// The worker that the next answer is for.
    fn who_asked(&mut self, uid: &PodUid, family: Family) -> Option<&mpsc::UnboundedSender<WorkerCommand>> {
        let worker = self.asked.get_mut(&(uid.clone(), family)).and_then(VecDeque::pop_front);
        self.workers.get(worker.unwrap_or_default())
    }

    fn ask(&mut self, question: SocketQuestion) {
        let SocketQuestion { worker, uid, family, count } = question;
        // A capture half that has just started does not know the pod yet and would say that it is not there. The worker
        // asks again when the pod is named.
        // To one that takes nothing new it names none.
        let names = !self.draining && !self.served.load().is_retired();
        if names && !self.named.contains(&uid) {
            return;
        }
        self.handover.want_sockets(&uid, family, count);
        self.asked.entry((uid, family)).or_default().push_back(worker);
    }

    /// Tells how much is still relayed for the pods that leave, when it changed.
    fn report(&mut self) {
        let served = self.served.load();
        for pod in served.pods().filter(|pod| pod.leaving) {
            let count = pod.relaying();
            if self.reported.insert(pod.info.uid.clone(), count) != Some(count) {
                self.handover.relaying(&pod.info.uid, count);
            }
        }
    }
}

fn send(worker: &mpsc::UnboundedSender<WorkerCommand>, command: WorkerCommand) {
    // A worker that ended has been drained, or its panic ends the program: nothing of it is left to command.
    let _ended = worker.send(command);
}
