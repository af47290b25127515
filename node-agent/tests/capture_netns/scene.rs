//! The whole capture half in-process, with a proxy that is a test.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, LocalSet},
    time::timeout,
};
use weft_node_agent::{
    capture::{
        serve::{CaptureSettings, serve},
        settings::OnFailure,
        status::{PodState, PodStatus, StatusHandle},
    },
    handover::{
        Condition, Event, Family, HandoverClient, HandoverHandle, Hello, WorkerListeners,
        server::{HandoverServer, HandoverSettings},
    },
    pods::{PodSpec, PodUid, roster::ReleasePatience},
};
use weft_testkit::netns::{Lab, Pod};

use crate::equipment::{DEADLINE, accept, block_on, connect, elsewhere};

pub(crate) fn spec(pod: &Pod) -> PodSpec {
    PodSpec {
        uid: pod.name.as_str().into(),
        name: pod.name.clone(),
        namespace: "shop".into(),
        service_account: "default".into(),
        addresses: vec![pod.v4.into(), pod.v6.into()],
        netns: Some(pod.netns.clone()),
        strict: false,
        enrolled: true,
        probe_ports: std::collections::BTreeSet::new(),
    }
}

/// A running capture half.
pub(crate) struct Half {
    pub(crate) wanted: watch::Sender<Arc<Vec<PodSpec>>>,
    pub(crate) status: StatusHandle,
    path: PathBuf,
    task: AbortHandle,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Half {
    pub(crate) fn start(lab: &Lab, wanted: Vec<PodSpec>, release_on_exit: bool) -> Self {
        Self::start_with(lab, wanted, |settings| settings.release_on_exit = release_on_exit)
    }

    pub(crate) fn start_with(lab: &Lab, wanted: Vec<PodSpec>, change: impl FnOnce(&mut CaptureSettings)) -> Self {
        let path = lab.directory().join("handover.sock");
        let handover = HandoverSettings { path: path.clone(), mode: 0o600, owner: None, allowed: vec![0] };
        let mut settings = CaptureSettings {
            cni_socket: None,
            kubelet: None,
            node: "node1".into(),
            handover: handover.clone(),
            xtables_lock: lab.directory().join("xtables.lock"),
            workers: 1,
            enrol_deadline: Duration::from_secs(60),
            settle: Duration::from_millis(200),
            release: ReleasePatience { grace: Duration::from_millis(10), deadline: Duration::from_secs(60) },
            audit_interval: Duration::from_millis(200),
            on_failure: OnFailure::Close,
            release_on_exit: false,
        };
        change(&mut settings);
        let (wanted, receiver) = watch::channel(Arc::new(wanted));
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let status = StatusHandle::default();
        let shown = status.clone();
        let server = HandoverServer::bind(handover).unwrap();
        let task = tokio::task::spawn_local(async move {
            let stop = async { _ = stopped.await };
            serve(settings, server, receiver, shown, stop).await.unwrap();
            end.send(())
        });
        let task = task.abort_handle();
        Self { wanted, task, status, path, stop: Some(stop), ended }
    }

    pub(crate) async fn end(mut self) {
        drop(self.stop.take());
        timeout(4 * DEADLINE, self.ended).await.unwrap().unwrap();
    }

    /// As kill -9: what it had is closed, nobody is told anything.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(timeout(DEADLINE, self.ended).await.unwrap().is_err(), "dropped, not ended");
    }

    /// Waits for a pod's status; none: the pod is not shown.
    pub(crate) async fn until(&self, uid: &str, what: impl Fn(Option<&PodStatus>) -> bool) {
        let reached = async {
            while !what(self.status.get().pods.get(&PodUid::from(uid))) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = timeout(2 * DEADLINE, reached).await;
        assert!(reached.is_ok(), "{}", self.status.to_json());
    }

    pub(crate) async fn until_state(&self, uid: &str, state: PodState) {
        self.until(uid, |pod| pod.is_some_and(|pod| pod.state == state)).await;
    }

    pub(crate) fn proxy(&self, workers: usize) -> Proxy {
        let (events, handle) =
            HandoverClient::connect_when_there(&self.path, Hello { workers, node: "node1".into(), born: 0 });
        Proxy { events, handle }
    }
}

pub(crate) struct Proxy {
    events: mpsc::Receiver<Event>,
    pub(crate) handle: HandoverHandle,
}

impl Proxy {
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            match timeout(2 * DEADLINE, self.events.recv()).await.expect("an event within the deadline").unwrap() {
                Event::Disconnected { .. } | Event::Condition(_) => {}
                event => return event,
            }
        }
    }

    /// Until a condition is told that is as wanted.
    pub(crate) async fn condition(&mut self, is: impl Fn(&Condition) -> bool) -> Condition {
        loop {
            let event =
                timeout(2 * DEADLINE, self.events.recv()).await.expect("a condition within the deadline").unwrap();
            if let Event::Condition(condition) = event
                && is(&condition)
            {
                return condition;
            }
        }
    }

    /// All pods of the snapshot, acknowledged.
    pub(crate) async fn snapshot(&mut self) -> Vec<(String, Vec<WorkerListeners>)> {
        let mut pods = Vec::new();
        loop {
            match self.next().await {
                Event::Pod { info, listeners } => {
                    self.handle.ack(&info.uid, Ok(()));
                    pods.push((info.name, listeners));
                }
                Event::SnapshotSent => return pods,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Connections of the pod to `elsewhere`, until each worker's listener had one: SO_REUSEPORT spreads them by a hash.
pub(crate) fn outbound_arrives(pod: &Pod, family: Family, listeners: &[WorkerListeners]) {
    let index = usize::from(family == Family::V6);
    for worker in listeners {
        let mut kept = Vec::new();
        let arrived = (0..200).any(|_| {
            kept.push(connect(pod, elsewhere(family), DEADLINE).unwrap());
            accept(&worker.outbound[index], Duration::ZERO).is_some()
        });
        assert!(arrived);
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    block_on(LocalSet::new().run_until(test));
}
