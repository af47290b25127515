//! What is in hand: every pod with its task, every proxy with its queue. The roster and the hub decide, the tasks and
//! sessions do, this carries between them. Called by the loop of [`super::serve`], never waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    adopt::Claim,
    closing::take_no_new,
    farewell::Proxies,
    install::Installer,
    join::CaptureError,
    order::{Command, Left, PodSettings, Report},
    pod::PodTask,
    ruleset::Phase,
    settings::{CaptureSettings, STATUS_FILE},
    socket::Listeners,
    status::{CaptureStatus, PodState, PodStatus, StatusHandle},
    told::Standing,
};
use crate::{
    handover::{
        ChannelError, PodInfo,
        hub::{Effect, Hub, Offer, Outgoing, SessionId},
        server::FromProxy,
    },
    pods::{
        PodSpec, PodUid, UncapturedReason,
        roster::{Action, Present, Stage, plan},
    },
};

/// Audits: a pod's takes some 30 ms of one core (four program runs), so pods share this pace on large nodes.
const AUDIT_SHARE: Duration = Duration::from_secs(1);

/// How long `--release-on-exit` may take: kubelet's default patience is 30 s.
const RELEASE_ON_EXIT: Duration = Duration::from_secs(20);

/// A release goes on without proxies after this time: one that lives comes back within two seconds, and if none does,
/// nobody relays anything.
const NO_PROXY: Duration = Duration::from_secs(5);

/// How long after the last step of a leaving pod (`--settle`) its captured calls may take to be counted: the proxy counts
/// every 500 ms.
const COUNTED: Duration = Duration::from_secs(1);

/// How long listeners that are found in a pod at the start of this half are left alone, so that the proxy that has them can
/// bring them: it tries to reach this half every two seconds at least.
const HOLDER_PATIENCE: Duration = Duration::from_secs(3);

/// Pods whose listeners are kept for a list of pods that has not come yet: more than a node has.
const MAX_CLAIMS: usize = 1000;

struct Pod {
    spec: PodSpec,
    stage: StageNow,
    commands: mpsc::UnboundedSender<Command>,
    offered: Option<(PodInfo, Listeners)>,
}

/// The stage with what only the loop knows of it.
#[derive(Clone, Copy, PartialEq)]
enum StageNow {
    Clean,
    Captured,
    Releasing(Release),
}

/// How far a pod is on its way out.
#[derive(Clone, Copy, PartialEq)]
struct Release {
    begun: Instant,
    /// When its callers could be told of it.
    opened: Option<Instant>,
    /// The rules of the last step stand.
    left: bool,
}

impl StageNow {
    fn release() -> Self {
        Self::Releasing(Release { begun: Instant::now(), opened: None, left: false })
    }
}

pub(super) struct Steward {
    pub(super) settings: CaptureSettings,
    pod_settings: PodSettings,
    status: StatusHandle,
    reports: mpsc::UnboundedSender<(PodUid, Report)>,
    pods: BTreeMap<PodUid, Pod>,
    hub: Hub,
    queues: BTreeMap<SessionId, mpsc::Sender<Outgoing>>,
    workers: usize,
    /// What proxies brought before the first list; none afterwards.
    claims: Option<BTreeMap<PodUid, Claim>>,
    pub(super) tasks: JoinSet<()>,
    shown: CaptureStatus,
}

impl Steward {
    pub(super) fn new(
        mut settings: CaptureSettings,
        installer: Installer,
        status: StatusHandle,
        reports: mpsc::UnboundedSender<(PodUid, Report)>,
    ) -> Self {
        // Its own calls are captured until it has settled, and the proxies count a moment later.
        settings.release.grace = settings.release.grace.max(settings.settle + COUNTED);
        let CaptureSettings { enrol_deadline, settle, audit_interval, on_failure, .. } = settings;
        Self {
            hub: Hub::new(&settings.node),
            workers: settings.workers,
            pod_settings: PodSettings {
                installer,
                enrol_deadline,
                settle,
                audit_interval,
                on_failure,
                await_holder: HOLDER_PATIENCE,
            },
            claims: Some(BTreeMap::new()),
            settings,
            status,
            reports,
            pods: BTreeMap::new(),
            queues: BTreeMap::new(),
            tasks: JoinSet::new(),
            shown: CaptureStatus::default(),
        }
    }

    /// The first list: snapshots wait for its pods.
    pub(super) fn expect(&mut self, wanted: &[PodSpec]) {
        // Those that are not enrolled as well: they may be found captured.
        let pods = wanted.iter().filter(|spec| spec.netns.is_some());
        let effects = self.hub.expect(pods.map(|spec| spec.uid.clone()).collect());
        self.perform(effects);
    }

    /// Does what the roster says.
    pub(super) fn follow(&mut self, wanted: &[PodSpec]) {
        let present = self.pods.iter().map(|(uid, pod)| (uid.clone(), self.present(uid, pod))).collect();
        for action in plan(wanted, &present, self.settings.release) {
            self.act(action);
        }
        // Whoever comes later finds no listeners of an earlier life of this half.
        self.claims = None;
        self.pod_settings.await_holder = Duration::ZERO;
        let unplaced = |uid: &PodUid| wanted.iter().any(|spec| spec.uid == *uid && spec.enrolled);
        self.status.change(|status| {
            status.pods.retain(|uid, pod| pod.state != PodState::Waiting || unplaced(uid));
            status.proxies = self.hub.proxies();
            status.workers = self.hub.workers();
        });
    }

    fn present(&self, uid: &PodUid, pod: &Pod) -> Present {
        let stage = match pod.stage {
            StageNow::Clean => Stage::Clean,
            StageNow::Captured => Stage::Captured,
            StageNow::Releasing(Release { begun, opened, left }) => {
                let age = begun.elapsed();
                // Right after a start of this half the proxy may not have come back yet, with what it relays.
                let early = self.hub.proxies() == 0 && age < NO_PROXY;
                let relaying = self.hub.relaying(uid).filter(|_| !early);
                Stage::Releasing { left: opened.filter(|_| left).map(|at| at.elapsed()), relaying, age }
            }
        };
        Present { spec: pod.spec.clone(), stage }
    }

    /// Where a pod stands in one namespace: for a new sandbox what stands in the one before counts for nothing.
    pub(super) fn standing(&self, uid: &PodUid, netns: &str) -> Standing {
        let is_captured = |pod: &Pod| {
            let is_there = pod.spec.netns.as_deref() == Some(netns);
            is_there && pod.stage == StageNow::Captured && pod.offered.is_some()
        };
        if self.pods.get(uid).is_some_and(is_captured) {
            return Standing::Captured;
        }
        Standing::NotYet(self.status.get_pod(uid).and_then(|pod| pod.error))
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(spec) | Action::Change(spec) => self.command(spec, Command::Capture, StageNow::Captured),
            Action::Clean(spec) => self.command(spec, Command::Clean, StageNow::Clean),
            Action::Restart(spec) => {
                self.forget(&spec.uid);
                self.command(spec, Command::Capture, StageNow::Captured);
            }
            Action::Wait(spec) => {
                let (error, uncaptured) = (Some(CaptureError::Unplaced.to_string()), Some(UncapturedReason::Unplaced));
                let pod = PodStatus { state: PodState::Waiting, error, uncaptured, ..described(&spec) };
                self.status.change(|status| {
                    if status.pods.insert(spec.uid.clone(), pod).is_none() {
                        tracing::warn!(
                            pod = spec.name,
                            namespace = spec.namespace,
                            "selected, but its network namespace is not known"
                        );
                    }
                });
            }
            Action::BeginRelease(uid) => {
                tracing::info!(pod = %uid, "leaves the mesh");
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.spec.enrolled = false;
                    pod.stage = StageNow::release();
                    let _ended = pod.commands.send(Command::Release);
                }
            }
            Action::FinishRelease(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    let latest = match pod.stage {
                        StageNow::Releasing(release) => release.begun + self.settings.release.deadline,
                        StageNow::Clean | StageNow::Captured => Instant::now(),
                    };
                    let _ended = pod.commands.send(Command::Finish(latest));
                    // Asked once: the task tries until it is done, and then reports.
                    pod.stage = StageNow::Clean;
                }
            }
            Action::Forget(uid) => {
                self.forget(&uid);
                self.status.change(|status| _ = status.pods.remove(&uid));
            }
        }
    }

    fn command(&mut self, spec: PodSpec, command: impl Fn(PodSpec) -> Command, stage: StageNow) {
        let uid = spec.uid.clone();
        if stage == StageNow::Captured {
            self.status.change(|status| {
                let pod = status.pods.entry(uid.clone()).or_insert_with(|| described(&spec));
                pod.netns = spec.netns.clone().or(pod.netns.take());
            });
        }
        let known = self.pods.get(&uid).is_some_and(|pod| pod.commands.send(command(spec.clone())).is_ok());
        if !known {
            let (commands, received) = mpsc::unbounded_channel();
            let interval =
                self.settings.audit_interval.max(AUDIT_SHARE * u32::try_from(self.pods.len()).unwrap_or(u32::MAX));
            let settings = PodSettings { audit_interval: interval, ..self.pod_settings.clone() };
            let task = PodTask::new(spec.clone(), self.workers, Arc::new(settings), self.reports.clone());
            if let Some(claim) = self.claims.as_mut().and_then(|claims| claims.remove(&uid)) {
                let _received_by_the_task = commands.send(Command::Adopt(claim));
            }
            let _received_by_the_task = commands.send(command(spec.clone()));
            self.tasks.spawn(task.run(received));
            self.pods.insert(uid.clone(), Pod { spec: spec.clone(), stage, commands, offered: None });
        }
        if let Some(pod) = self.pods.get_mut(&uid) {
            if spec.netns.is_some() && spec.netns != pod.spec.netns {
                pod.offered = None;
            }
            let netns = spec.netns.clone().or(pod.spec.netns.take());
            pod.spec = PodSpec { netns, ..spec };
            pod.stage = stage;
        }
    }

    fn forget(&mut self, uid: &PodUid) {
        // Without its commands the task ends and closes its sockets.
        self.pods.remove(uid);
        let effects = self.hub.remove(uid);
        self.perform(effects);
    }

    /// What a pod's task reports.
    pub(super) fn hear(&mut self, uid: &PodUid, report: Report) {
        match report {
            Report::Captured { listeners, phase, old } => self.captured(uid, listeners, phase, old),
            Report::Sockets(session, family, sockets) => {
                let effects = self.hub.sockets(session, uid.clone(), family, sockets);
                self.perform(effects);
            }
            Report::NoListeners(error) => {
                tracing::warn!(pod = %uid, %error, "no listeners for the proxy's workers");
                self.status.change_pod(uid, |pod| pod.error = Some(error.to_string()));
                let effects = self.hub.cannot(uid);
                self.perform(effects);
            }
            Report::Releasing => {
                // Not before the rules: the proxies let the mesh know, and then its callers come in plaintext.
                let effects = self.hub.release(uid);
                self.perform(effects);
                self.status.change_pod(uid, |pod| (pod.state, pod.uncaptured) = (PodState::Releasing, None));
                self.releasing(uid, |release| _ = release.opened.get_or_insert_with(Instant::now));
            }
            Report::Left => self.releasing(uid, |release| release.left = true),
            Report::Clean => {
                if self.pods.get(uid).is_some_and(|pod| pod.stage == StageNow::Clean) {
                    if let Some(pod) = self.pods.get_mut(uid) {
                        pod.offered = None;
                    }
                    let effects = self.hub.remove(uid);
                    self.perform(effects);
                    self.status.change(|status| _ = status.pods.remove(uid));
                }
            }
            Report::Leaving(listeners) => self.leaving(uid, &listeners),
            Report::Failed { error, left } => self.failed(uid, &error, left),
            Report::Repaired(what) => {
                tracing::warn!(pod = %uid, what, "rules, routes or listeners had been changed by somebody, repaired");
                self.status.change(|status| status.repairs += 1);
                self.status.change_pod(uid, |pod| {
                    pod.repairs += 1;
                    pod.repaired = Some(what.clone());
                });
            }
        }
    }

    fn releasing(&mut self, uid: &PodUid, change: impl Fn(&mut Release)) {
        if let Some(Pod { stage: StageNow::Releasing(release), .. }) = self.pods.get_mut(uid) {
            change(release);
        }
    }

    /// Found captured by an earlier life, and not selected any more: served until it has left.
    fn leaving(&mut self, uid: &PodUid, listeners: &Listeners) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        tracing::info!(pod = %uid, "was captured and is not selected any more: leaves the mesh");
        pod.stage = StageNow::release();
        let described = PodStatus { state: PodState::Releasing, ..described(&pod.spec) };
        self.status.change(|status| _ = status.pods.insert(uid.clone(), described));
        let effects = self.hub.put(info(&pod.spec, &self.settings.node), offer(listeners));
        self.perform(effects);
    }

    fn failed(&mut self, uid: &PodUid, error: &CaptureError, left: Left) {
        let (reason, words) = (error.reason(), error.to_string());
        let mut known = false;
        self.status.change_pod(uid, |pod| {
            let state = if left == Left::Closed { PodState::Closed } else { PodState::Failed };
            let uncaptured = matches!(left, Left::Closed | Left::Open).then_some(reason);
            known = pod.error.as_ref() == Some(&words) && pod.state == state;
            (pod.state, pod.uncaptured) = (state, uncaptured);
            pod.error = Some(words.clone());
            pod.failures += 1;
        });
        // Every attempt of a pod that waits for somebody to act would fill the log.
        if !known {
            tracing::warn!(pod = %uid, error = words, ?left, "not as wanted, trying again");
        }
        let effects = self.hub.cannot(uid);
        self.perform(effects);
    }

    fn captured(&mut self, uid: &PodUid, listeners: Listeners, phase: Phase, old: usize) {
        let Some(pod) = self.pods.get_mut(uid).filter(|pod| pod.stage == StageNow::Captured) else { return };
        let enrolling = matches!(phase, Phase::EnrolOut(_) | Phase::Enrol(_));
        let state = if enrolling { PodState::Enrolling } else { PodState::Captured };
        let (ports, workers) = (Some(listeners.ports), listeners.workers());
        let mut news = false;
        self.status.change_pod(uid, |pod| {
            news = pod.state != state;
            let (failures, error, uncaptured, old_connections) = (0, None, None, old);
            *pod = PodStatus { state, ports, workers, failures, error, uncaptured, old_connections, ..pod.clone() };
        });
        if news {
            tracing::info!(pod = pod.spec.name, namespace = pod.spec.namespace, ?phase, old, "captured");
        }
        let info = info(&pod.spec, &self.settings.node);
        let same =
            pod.offered.as_ref().is_some_and(|(told, sockets)| *told == info && sockets.same_sockets(&listeners));
        if same && !self.hub.is_releasing(uid) {
            return;
        }
        pod.offered = Some((info.clone(), listeners.clone()));
        let effects = self.hub.put(info, offer(&listeners));
        self.perform(effects);
    }

    /// What happens at the handover socket.
    pub(super) fn proxy(&mut self, event: FromProxy) {
        let effects = match event {
            FromProxy::Connected(id, queue) => {
                self.queues.insert(id, queue);
                self.hub.connected(id);
                Vec::new()
            }
            FromProxy::Said(id, message) => self.hub.said(id, message),
            FromProxy::Holds(id, uid, listeners) => {
                if self.hub.has_greeted(id) {
                    let claim = listeners.into_iter().map(|(tag, socket)| (tag, Arc::new(socket))).collect();
                    self.claimed(uid, claim);
                }
                Vec::new()
            }
            FromProxy::Gone(id, reason) => {
                if matches!(reason, ChannelError::Message(_)) {
                    // It comes again and again until it is restarted, or this half is.
                    tracing::warn!(session = id, %reason, "a proxy is not understood; its listeners stay open");
                } else {
                    tracing::info!(session = id, %reason, "a proxy is gone; its listeners stay open");
                }
                self.queues.remove(&id);
                self.hub.disconnected(id)
            }
        };
        self.perform(effects);
    }

    /// Of two proxies the first is believed: where both serve a pod, they have the same sockets.
    fn claimed(&mut self, uid: PodUid, claim: Claim) {
        match (&mut self.claims, self.pods.get(&uid)) {
            (_, Some(pod)) => _ = pod.commands.send(Command::Adopt(claim)),
            (Some(claims), None) if claims.len() < MAX_CLAIMS => _ = claims.entry(uid).or_insert(claim),
            (_, None) => tracing::debug!(pod = %uid, "a proxy has listeners of a pod that is not there"),
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(id, outgoing) => {
                    let full = self.queues.get(&id).is_some_and(|queue| queue.try_send(outgoing).is_err());
                    if full {
                        effects.push_back(Effect::Close(id, "it is too far behind"));
                    }
                }
                Effect::Close(id, why) => {
                    // Dropping the queue ends the session, which then reports that it is gone.
                    if self.queues.remove(&id).is_some() {
                        tracing::warn!(session = id, why, "conversation with a proxy ended");
                    }
                }
                Effect::MakeListeners(uid, workers) => {
                    self.workers = workers;
                    match self.pods.get(&uid) {
                        Some(pod) if pod.commands.send(Command::Workers(workers)).is_ok() => {}
                        _ => effects.extend(self.hub.cannot(&uid)),
                    }
                }
                Effect::MakeSockets(id, uid, family, count) => match self.pods.get(&uid) {
                    Some(pod) if pod.commands.send(Command::Sockets(id, family, count)).is_ok() => {}
                    _ => effects.extend(self.hub.sockets(id, uid, family, Vec::new())),
                },
                Effect::Acknowledged(uid, outcome) => {
                    if let Err(reason) = &outcome {
                        tracing::warn!(pod = %uid, reason, "the proxy does not serve the pod");
                    }
                    self.status.change_pod(&uid, |pod| pod.refusal = outcome.err());
                }
            }
        }
    }

    /// This half has no port: its proxies are told what their metrics and pages show of it, and who wants to know all of
    /// it reads a file beside the handover socket.
    pub(super) fn show(&mut self) {
        let now = self.status.get();
        if now == self.shown {
            return;
        }
        let effects = self.hub.condition(now.condition());
        self.perform(effects);
        let path = self.settings.handover.path.with_file_name(STATUS_FILE);
        let (text, draft) = (self.status.to_json().to_string(), path.with_extension("new"));
        match std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path)) {
            Ok(()) => {}
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot write the state"),
        }
        self.shown = now;
    }

    pub(super) fn proxies(&self) -> Proxies {
        Proxies { serving: self.hub.is_served(), draining: self.hub.has_draining() }
    }

    /// Nobody stands in for this agent: whoever connects from now on is to try again, and the proxy empties the queues.
    pub(super) fn close_listeners(&self) {
        let offered = self.pods.values().filter_map(|pod| pod.offered.as_ref());
        for listener in offered.flat_map(|(_, listeners)| &listeners.all) {
            if let Err(error) = take_no_new(&listener.socket) {
                tracing::warn!(%error, "connections that begin in this moment are reset");
                return;
            }
        }
    }

    /// The orderly end. Pods that leave are let go at once: nobody selects them any more, and closed behind an agent that went for good
    /// is no way to leave. With `--release-on-exit` all others as well.
    pub(super) async fn finish(&mut self, reported: &mut mpsc::UnboundedReceiver<(PodUid, Report)>) {
        let everybody = self.settings.release_on_exit;
        let goes = |pod: &Pod| match pod.stage {
            StageNow::Releasing(_) => true,
            StageNow::Captured => everybody,
            // It waits for its last bytes.
            StageNow::Clean => pod.offered.is_some(),
        };
        self.pods.retain(|_, pod| goes(pod) && pod.commands.send(Command::Finish(Instant::now())).is_ok());
        let all = async {
            while !self.pods.is_empty() {
                let Some((uid, report)) = reported.recv().await else { return };
                match report {
                    Report::Clean => drop(self.pods.remove(&uid)),
                    Report::Failed { error, .. } => tracing::warn!(pod = %uid, %error, "rules are not removed yet"),
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(RELEASE_ON_EXIT, all).await.is_err() {
            let left: Vec<_> = self.pods.keys().map(PodUid::as_str).collect();
            tracing::error!(?left, "rules could not be removed from these pods in time; they stay closed");
        }
    }
}

fn described(spec: &PodSpec) -> PodStatus {
    PodStatus {
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        netns: spec.netns.clone(),
        ..PodStatus::default()
    }
}

fn info(spec: &PodSpec, node: &str) -> PodInfo {
    PodInfo {
        uid: spec.uid.clone(),
        name: spec.name.clone(),
        namespace: spec.namespace.clone(),
        service_account: spec.service_account.clone(),
        addresses: spec.addresses.clone(),
        node: node.to_owned(),
        strict: spec.strict,
    }
}

fn offer(listeners: &Listeners) -> Offer {
    let all = listeners.all.iter().map(|listener| (listener.tag, listener.socket.clone()));
    Offer { workers: listeners.workers(), listeners: all.collect() }
}
