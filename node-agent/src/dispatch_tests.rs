//! The dispatcher between a scripted capture half and workers that only note what they are told.

use std::cell::RefCell;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_runtime::shared::Reader;

use super::dispatch::{Dispatcher, PodObserver, SocketQuestion, ask_through, nobody_served};
use crate::handover::{Channel, Family, HandoverClient, Hello, ListenerRole, ListenerTag, PodInfo, ToCapture, ToProxy};
use crate::node_info::NodeInfo;
use crate::pods::PodUid;
use crate::worker::pod_load::Way;
use crate::worker::run::WorkerCommand;
use crate::worker::served::{Served, ServedPod};

const SOON: Duration = Duration::from_secs(5);

type Log = Rc<RefCell<Vec<String>>>;

struct Notes(Log);

impl PodObserver for Notes {
    fn came(&self, pod: &ServedPod) {
        self.0.borrow_mut().push(format!("+{}", pod.identity.service_account()));
    }

    fn went(&self, pod: &ServedPod) {
        self.0.borrow_mut().push(format!("-{}", pod.identity.service_account()));
    }
}

struct Scene {
    capture: Channel,
    workers: Vec<mpsc::UnboundedReceiver<WorkerCommand>>,
    questions: mpsc::UnboundedSender<SocketQuestion>,
    served: Reader<Served>,
    observed: Log,
}

impl Scene {
    async fn new() -> Self {
        let (capture, channel) = Channel::pair().unwrap();
        let (events, handle) = HandoverClient::over(channel, Hello { workers: 2, node: "node-a".into(), born: 0 });
        let (writer, served) = nobody_served();
        let observed = Log::default();
        let (commands, workers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
        let node = NodeInfo {
            name: "node-a".into(),
            network: "".into(),
            cluster: "Kubernetes".into(),
            trust_domain: "cluster.local".into(),
        };
        let dispatcher = Dispatcher::new(Arc::new(node), commands, handle, writer, Notes(observed.clone()));
        let (questions, asked) = mpsc::unbounded_channel();
        tokio::task::spawn_local(dispatcher.run(events, asked, CancellationToken::new()));
        let scene = Self { capture, workers, questions, served, observed };
        assert!(matches!(scene.hear().await, ToCapture::Hello(_)));
        scene
    }

    async fn hear(&self) -> ToCapture {
        timeout(SOON, self.capture.receive()).await.expect("nothing was said").unwrap().0
    }

    async fn say(&self, message: ToProxy) {
        self.capture.send(&message, &[]).await.unwrap();
    }

    async fn pod(&self, name: &str, account: &str) {
        let info = PodInfo {
            uid: name.into(),
            name: name.into(),
            namespace: "shop".into(),
            service_account: account.into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            node: "node-a".into(),
            strict: false,
        };
        let sockets: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let tag = |worker| ListenerTag { worker, role: ListenerRole::Hbone, family: Family::V4 };
        let message = ToProxy::Pod { info, listeners: vec![tag(0), tag(1)] };
        let descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        self.capture.send(&message, &descriptors).await.unwrap();
    }

    async fn told(&mut self, worker: usize) -> WorkerCommand {
        timeout(SOON, self.workers[worker].recv()).await.expect("the worker is told nothing").unwrap()
    }

    async fn acknowledged(&self, name: &str) -> Option<String> {
        match self.hear().await {
            ToCapture::Ack { uid, error } if uid.as_str() == name => error,
            other => panic!("{other:?}"),
        }
    }
}

async fn scene(test: impl AsyncFnOnce(Scene)) {
    LocalSet::new().run_until(async { test(Scene::new().await).await }).await;
}

#[tokio::test]
async fn a_pod_reaches_every_worker_and_goes_from_every_worker() {
    scene(async |mut scene| {
        scene.pod("web", "shopper").await;
        assert_eq!(scene.acknowledged("web").await, None);
        for worker in 0..2 {
            let WorkerCommand::AddPod { pod, listeners } = scene.told(worker).await else { panic!("no pod") };
            assert_eq!((pod.info.name.as_str(), listeners.hbone.len()), ("web", 1));
        }
        assert!(scene.served.load().pod(&"web".into()).is_some());
        // The same pod again is no new one.
        scene.pod("web", "shopper").await;
        assert_eq!(scene.acknowledged("web").await, None);
        scene.say(ToProxy::Remove { uid: "web".into() }).await;
        assert_eq!(scene.acknowledged("web").await, None);
        for worker in 0..2 {
            assert!(matches!(scene.told(worker).await, WorkerCommand::AddPod { .. }));
            assert!(matches!(scene.told(worker).await, WorkerCommand::RemovePod { .. }));
        }
        assert_eq!(*scene.observed.borrow(), ["+shopper", "-shopper"]);
        assert!(scene.served.load().pod(&"web".into()).is_none());
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_cannot_have_an_identity_is_not_served_and_said_so() {
    scene(async |scene| {
        scene.pod("web", "not/an/account").await;
        assert!(scene.acknowledged("web").await.unwrap().contains("service account"));
        assert_eq!(scene.served.load().pods().count(), 0);
    })
    .await;
}

#[tokio::test]
async fn sockets_go_to_the_worker_that_asked() {
    scene(async |mut scene| {
        scene.pod("web", "web").await;
        assert_eq!(scene.acknowledged("web").await, None);
        let uid = PodUid::from("web");
        for worker in [1, 0] {
            ask_through(scene.questions.clone(), worker)(&uid, Family::V6, 5 + worker);
            let ToCapture::WantSockets { count, .. } = scene.hear().await else { panic!("no question") };
            assert_eq!(count, 5 + worker);
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let answer = ToProxy::Sockets { uid: uid.clone(), family: Family::V6 };
        scene.capture.send(&answer, &[socket.as_fd()]).await.unwrap();
        scene.capture.send(&answer, &[]).await.unwrap();
        for (worker, expected) in [(1, 1), (0, 0)] {
            assert!(matches!(scene.told(worker).await, WorkerCommand::AddPod { .. }));
            let WorkerCommand::Sockets { sockets, .. } = scene.told(worker).await else { panic!("no sockets") };
            assert_eq!(sockets.len(), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_asked_for_a_pod_that_was_not_named_yet() {
    scene(async |scene| {
        // As after a restart of the capture half, which would answer that there is no such pod.
        ask_through(scene.questions.clone(), 0)(&PodUid::from("web"), Family::V4, 4);
        tokio::task::yield_now().await;
        scene.pod("web", "web").await;
        assert_eq!(scene.acknowledged("web").await, None, "the first words are about the pod");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_leaving_pod_still_relays_is_told_until_it_is_nothing() {
    scene(async |scene| {
        scene.pod("web", "web").await;
        assert_eq!(scene.acknowledged("web").await, None);
        let pod = scene.served.load().pod(&"web".into()).unwrap().clone();
        let mut relayed: Vec<_> = (0..2).map(|_| pod.load.enter(Way::Outbound)).collect();
        scene.say(ToProxy::Release { uid: "web".into() }).await;
        assert_eq!(scene.acknowledged("web").await, None);
        assert!(scene.served.load().pod(&"web".into()).unwrap().leaving);
        for count in [2, 1, 0] {
            relayed.truncate(usize::try_from(count).unwrap());
            let ToCapture::Relaying { count: told, .. } = scene.hear().await else { panic!("no count") };
            assert_eq!(told, count);
        }
        // Named anew: the release is revoked.
        scene.pod("web", "web").await;
        assert_eq!(scene.acknowledged("web").await, None);
        assert!(!scene.served.load().pod(&"web".into()).unwrap().leaving);
    })
    .await;
}

#[tokio::test]
async fn what_a_snapshot_does_not_name_is_served_no_more() {
    scene(async |mut scene| {
        scene.pod("web", "web").await;
        scene.pod("cart", "cart").await;
        assert_eq!(scene.acknowledged("web").await, None);
        assert_eq!(scene.acknowledged("cart").await, None);
        assert!(!scene.served.load().is_complete());
        scene.say(ToProxy::SnapshotSent).await;
        timeout(SOON, scene.served.wait_until(Served::is_complete)).await.unwrap().unwrap();
        scene.say(ToProxy::Retire).await;
        for worker in 0..2 {
            assert!(matches!(scene.told(worker).await, WorkerCommand::AddPod { .. }));
            assert!(matches!(scene.told(worker).await, WorkerCommand::AddPod { .. }));
            assert!(matches!(scene.told(worker).await, WorkerCommand::Retire), "both were named: nothing is removed");
        }
        assert_eq!(scene.served.load().pods().count(), 2);
    })
    .await;
}
