//! The proxy's end of the handover: pods and sockets arrive as events, what the proxy has to say goes through a handle.
//!
//! The client reconnects by itself: after [`Event::Disconnected`] it tries again and the capture half sends everything
//! anew, ended by [`Event::SnapshotSent`]. The proxy keeps serving in between: its listeners are its own descriptors.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};

use super::{
    channel::{Arrived, Channel, ChannelError},
    kept::Kept,
    message::{Condition, Family, Hello, ListenerRole, ListenerTag, MAX_SOCKETS, PodInfo, ToCapture, ToProxy},
    spare::Spare,
};
use crate::pods::PodUid;

/// First and longest pause between two attempts to reach the capture half: it is on the same machine, and back within
/// a second when restarted; a longer pause only delays new pods.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Rests, and how many of them, until the workers have closed the listeners that those of the last record replaced: only while
/// descriptors are short.
const SETTLE: (Duration, u32) = (Duration::from_millis(10), 10);

/// Events that wait for the proxy's control thread before the capture half is made to wait (it keeps a queue as well).
const EVENT_QUEUE: usize = 256;

/// The listeners of one data worker in one pod, non-blocking. IPv6 ones are missing where the pod has no IPv6.
#[derive(Debug, Default)]
pub struct WorkerListeners {
    /// The pod's own calls; an accepted socket's local address is the original destination.
    pub outbound: Vec<TcpListener>,
    /// Plaintext calls to the pod; an accepted socket's local address is the original destination.
    pub inbound: Vec<TcpListener>,
    /// HBONE to the pod.
    pub hbone: Vec<TcpListener>,
}

/// What the capture half tells.
#[derive(Debug)]
pub enum Event {
    /// A captured pod, new or changed: replaces everything said of this uid before, and revokes a `Release`. Accept what
    /// waits in the old listeners before closing them.
    Pod {
        /// The pod.
        info: PodInfo,
        /// By worker, as many as the client said in [`Hello`].
        listeners: Vec<WorkerListeners>,
    },
    /// The pod leaves the mesh: finish what is there and report [`HandoverHandle::relaying`] until 0.
    Release {
        /// Which pod.
        uid: PodUid,
    },
    /// Close everything of this pod.
    Remove {
        /// Which pod.
        uid: PodUid,
    },
    /// A pod that was not named since the connection began is captured no more.
    SnapshotSent,
    /// Sockets to dial from inside the pod: unbound, transparent, marked, non-blocking. None: the pod is not there.
    Sockets {
        /// Which pod.
        uid: PodUid,
        /// Which family.
        family: Family,
        /// Convert with `std::net::TcpStream::from` and `tokio::net::TcpSocket::from_std_stream`.
        sockets: Vec<OwnedFd>,
    },
    /// Sockets were sent and could not be taken: this process has no descriptors for them.
    SocketsLost {
        /// For which pod.
        uid: PodUid,
        /// Which family.
        family: Family,
    },
    /// A newer proxy has taken every pod: stop accepting and finish.
    Retire,
    /// How it stands with the capture of this node's pods.
    Condition(Condition),
    /// The capture half is away; the client is trying to reach it. Requests for sockets that were not answered are lost.
    Disconnected {
        /// Why, for the log.
        reason: String,
    },
}

/// Why the first connection could not be made.
#[derive(Debug, Error)]
#[error(
    "cannot reach the capture half at {path}: {source}; is `weft-node-agent capture` running, and may this user open the socket?"
)]
pub struct ClientError {
    path: PathBuf,
    source: std::io::Error,
}

/// Starts the conversation.
#[derive(Debug)]
pub struct HandoverClient;

impl HandoverClient {
    /// Connects now, or says why not; afterwards stays connected (see the module) until every handle or the receiver is
    /// dropped. Runs as one task of the current tokio runtime.
    ///
    /// # Errors
    /// Only for the first attempt.
    pub fn connect(path: &Path, hello: Hello) -> Result<(mpsc::Receiver<Event>, HandoverHandle), ClientError> {
        let channel = Channel::connect(path).map_err(|source| ClientError { path: path.to_path_buf(), source })?;
        Ok(start(Some(channel), path.to_path_buf(), hello))
    }

    /// As [`Self::connect`], but a capture half that is not there yet is waited for. The first event may therefore be
    /// [`Event::Disconnected`].
    #[must_use]
    pub fn connect_when_there(path: &Path, hello: Hello) -> (mpsc::Receiver<Event>, HandoverHandle) {
        start(None, path.to_path_buf(), hello)
    }

    /// Talks over a channel that is connected already, and ends with it: for tests.
    #[must_use]
    pub fn over(channel: Channel, hello: Hello) -> (mpsc::Receiver<Event>, HandoverHandle) {
        start(Some(channel), PathBuf::new(), hello)
    }
}

/// What the proxy can say. Never blocks; cheap to clone.
#[derive(Clone, Debug)]
pub struct HandoverHandle {
    requests: mpsc::UnboundedSender<ToCapture>,
}

impl HandoverHandle {
    /// Answers `Pod`, `Release` and `Remove`: done, or why the pod is not served.
    pub fn ack(&self, uid: &PodUid, outcome: Result<(), String>) {
        self.say(ToCapture::Ack { uid: uid.clone(), error: outcome.err() });
    }

    /// Asks for dial sockets; they arrive as [`Event::Sockets`]. `count` is a wish, cut to 1..=64; asking again within
    /// 100 ms makes the capture half send more at once.
    pub fn want_sockets(&self, uid: &PodUid, family: Family, count: usize) {
        self.say(ToCapture::WantSockets { uid: uid.clone(), family, count: count.clamp(1, MAX_SOCKETS) });
    }

    /// Tells how many captured connections this proxy relays for the pod. Needed while a pod is being released, and
    /// remembered over a reconnect.
    pub fn relaying(&self, uid: &PodUid, count: u64) {
        self.say(ToCapture::Relaying { uid: uid.clone(), count });
    }

    /// This proxy takes nothing new any more. Remembered over a reconnect.
    pub fn draining(&self) {
        self.say(ToCapture::Draining);
    }

    fn say(&self, message: ToCapture) {
        // The task ends only when the proxy does; then nobody listens, and nothing is lost.
        let _ended = self.requests.send(message);
    }
}

fn start(channel: Option<Channel>, path: PathBuf, hello: Hello) -> (mpsc::Receiver<Event>, HandoverHandle) {
    let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
    let (requests, request_receiver) = mpsc::unbounded_channel();
    let client = Client {
        path,
        spare: Spare::new(hello.workers),
        hello,
        events: event_sender,
        requests: request_receiver,
        relaying: BTreeMap::new(),
        draining: false,
        kept: Kept::default(),
        fruitful: false,
    };
    tokio::spawn(client.run(channel));
    (events, HandoverHandle { requests })
}

/// Why a conversation ended, and whether there shall be another one.
enum End {
    Proxy,
    Lost(String),
}

struct Client {
    path: PathBuf,
    hello: Hello,
    events: mpsc::Sender<Event>,
    requests: mpsc::UnboundedReceiver<ToCapture>,
    relaying: BTreeMap<PodUid, u64>,
    draining: bool,
    kept: Kept,
    spare: Spare,
    /// The last conversation came to the end of its snapshot.
    fruitful: bool,
}

impl Client {
    async fn run(mut self, mut channel: Option<Channel>) {
        let mut pause = RECONNECT.0;
        loop {
            let end = match channel.take() {
                Some(channel) => {
                    let begun = Instant::now();
                    let end = self.converse(channel).await;
                    // A capture half that hangs up at once (another node's, another version's) is no reason to hurry; one
                    // that had named every pod and was killed is.
                    if self.fruitful || begun.elapsed() >= RECONNECT.1 {
                        pause = RECONNECT.0;
                    }
                    end
                }
                None => match self.connect() {
                    Ok(connected) => {
                        channel = Some(connected);
                        continue;
                    }
                    Err(error) => End::Lost(format!("cannot connect to {}: {error}", self.path.display())),
                },
            };
            let End::Lost(reason) = end else { return };
            let event = Event::Disconnected { reason };
            if self.events.send(event).await.is_err() || self.path.as_os_str().is_empty() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT.1);
            if !self.forget_requests() {
                return;
            }
        }
    }

    fn connect(&mut self) -> std::io::Result<Channel> {
        self.spare.lend();
        let connected = Channel::connect(&self.path);
        // Mostly there is no capture half; if there is no descriptor, the next attempt has one.
        if connected.is_err() {
            self.spare.missed();
        }
        connected
    }

    /// What was asked of a capture half that is gone is of no use to its successor, but the counts are.
    fn forget_requests(&mut self) -> bool {
        loop {
            match self.requests.try_recv() {
                Ok(message) => self.remember(&message),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn remember(&mut self, message: &ToCapture) {
        match message {
            ToCapture::Relaying { uid, count: 0 } => _ = self.relaying.remove(uid),
            ToCapture::Relaying { uid, count } => _ = self.relaying.insert(uid.clone(), *count),
            ToCapture::Draining => self.draining = true,
            ToCapture::Hello(_) | ToCapture::Holds { .. } | ToCapture::Ack { .. } | ToCapture::WantSockets { .. } => {}
        }
    }

    async fn converse(&mut self, channel: Channel) -> End {
        self.fruitful = false;
        let counts = self.relaying.iter().map(|(uid, count)| ToCapture::Relaying { uid: uid.clone(), count: *count });
        let draining = self.draining.then_some(ToCapture::Draining);
        let hello = (ToCapture::Hello(self.hello.clone()), Vec::new());
        let others = draining.into_iter().chain(counts).map(|message| (message, Vec::new()));
        // The counts first: a pod that leaves is looked at as soon as its listeners are there.
        let first: Vec<_> = std::iter::once(hello).chain(others).chain(self.kept.said_again()).collect();
        for (message, descriptors) in first {
            if let Err(error) = channel.send(&message, &descriptors).await {
                return End::Lost(error.to_string());
            }
        }
        self.settle().await;
        loop {
            tokio::select! {
                received = channel.receive_what_came(|| self.spare.lend()) => {
                    let event = match received.and_then(|arrived| self.heard(arrived)) {
                        Ok(event) => event,
                        Err(error) => return End::Lost(error.to_string()),
                    };
                    if self.events.send(event).await.is_err() {
                        return End::Proxy;
                    }
                    self.settle().await;
                }
                request = self.requests.recv() => {
                    let Some(message) = request else { return End::Proxy };
                    self.remember(&message);
                    if let Err(error) = channel.send(&message, &[]).await {
                        return End::Lost(error.to_string());
                    }
                }
            }
        }
    }
}

impl Client {
    /// What the capture half said, and what is kept of it. Sockets to dial with give way to what must not fail.
    fn heard(&mut self, arrived: Arrived<ToProxy>) -> Result<Event, ChannelError> {
        let Arrived { message, mut descriptors, lost } = arrived;
        if lost {
            self.spare.missed();
        }
        if let ToProxy::Sockets { uid, family } = &message
            && !self.spare.renew()
        {
            descriptors.clear();
            self.spare.renew();
            return Ok(Event::SocketsLost { uid: uid.clone(), family: *family });
        }
        if let (ToProxy::Sockets { uid, family }, true, true) = (&message, lost, descriptors.is_empty()) {
            return Ok(Event::SocketsLost { uid: uid.clone(), family: *family });
        }
        self.kept.heard(&message, &descriptors);
        self.fruitful |= message == ToProxy::SnapshotSent;
        to_event(message, descriptors, self.hello.workers)
    }

    /// Takes the spare descriptors back, if need be when the workers have closed what they need not have any more.
    async fn settle(&mut self) {
        for _ in 0..SETTLE.1 {
            if self.spare.renew() {
                return;
            }
            tokio::time::sleep(SETTLE.0).await;
        }
    }
}

fn to_event(message: ToProxy, descriptors: Vec<OwnedFd>, workers: usize) -> Result<Event, ChannelError> {
    Ok(match message {
        ToProxy::Pod { info, listeners } => {
            if listeners.len() != descriptors.len() {
                return Err(ChannelError::DescriptorsLost);
            }
            Event::Pod { info, listeners: by_worker(&listeners, descriptors, workers)? }
        }
        ToProxy::Release { uid } => Event::Release { uid },
        ToProxy::Remove { uid } => Event::Remove { uid },
        ToProxy::SnapshotSent => Event::SnapshotSent,
        ToProxy::Sockets { uid, family } => Event::Sockets { uid, family, sockets: descriptors },
        ToProxy::Retire => Event::Retire,
        ToProxy::Condition(condition) => Event::Condition(condition),
    })
}

fn by_worker(
    tags: &[ListenerTag],
    descriptors: Vec<OwnedFd>,
    workers: usize,
) -> Result<Vec<WorkerListeners>, ChannelError> {
    let mut listeners: Vec<WorkerListeners> = (0..workers).map(|_| WorkerListeners::default()).collect();
    for (tag, descriptor) in tags.iter().zip(descriptors) {
        // A queue without an acceptor only fills, so one too many is refused as well.
        let worker = listeners
            .get_mut(tag.worker)
            .ok_or(super::message::MessageError::OutOfRange("listener for a worker that this proxy does not have"))?;
        let listener = TcpListener::from(descriptor);
        match tag.role {
            ListenerRole::Outbound => worker.outbound.push(listener),
            ListenerRole::Inbound => worker.inbound.push(listener),
            ListenerRole::Hbone => worker.hbone.push(listener),
        }
    }
    Ok(listeners)
}
