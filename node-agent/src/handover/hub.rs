//! Who must be told what: the capture half's side of the conversation with any number of proxies. No I/O.
//!
//! The newest proxy gets every pod; when it has taken all of them, the older ones are told to retire, and finish what
//! they have. When the newest dies or drains, the next one gets everything again. Each call returns what is to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::Arc,
};

use super::message::{Condition, Family, ListenerTag, PodInfo, ToCapture, ToProxy};
use crate::pods::PodUid;

/// One connection of a proxy; later ones are greater.
pub type SessionId = u64;

/// A message with its descriptors, which stay open here.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What is said.
    pub message: ToProxy,
    /// What goes beside it.
    pub descriptors: Vec<Arc<OwnedFd>>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Say this.
    Send(SessionId, Outgoing),
    /// End this conversation: the proxy does not keep to the protocol.
    Close(SessionId, &'static str),
    /// Make listeners for this many workers in a pod, then call [`Hub::put`] (or [`Hub::cannot`]).
    MakeListeners(PodUid, usize),
    /// Make dial sockets, then call [`Hub::sockets`].
    MakeSockets(SessionId, PodUid, Family, usize),
    /// A proxy serves a pod, or says why not.
    Acknowledged(PodUid, Result<(), String>),
}

/// Listeners of one pod for a number of workers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// How many workers.
    pub workers: usize,
    /// Their listeners.
    pub listeners: Vec<(ListenerTag, Arc<OwnedFd>)>,
}

#[derive(Debug)]
struct Pod {
    info: PodInfo,
    offer: Offer,
    releasing: bool,
}

#[derive(Debug, Default)]
struct Session {
    /// None until Hello.
    workers: Option<usize>,
    born: u64,
    /// Takes nothing new.
    draining: bool,
    /// Pods whose listeners are being made for this proxy.
    awaited: BTreeSet<PodUid>,
    snapshot_sent: bool,
    retired: bool,
    told: BTreeSet<PodUid>,
    unacknowledged: BTreeSet<PodUid>,
    relaying: BTreeMap<PodUid, u64>,
}

/// A proxy's wish for dial sockets.
#[derive(Clone, Debug)]
struct Question {
    session: SessionId,
    uid: PodUid,
    family: Family,
    count: usize,
}

/// Pods and conversations.
#[derive(Debug, Default)]
pub struct Hub {
    node: String,
    pods: BTreeMap<PodUid, Pod>,
    sessions: BTreeMap<SessionId, Session>,
    newest: Option<SessionId>,
    /// Pods that are being captured since the start; none: not known yet which. A snapshot that did not wait for them
    /// would make a proxy that outlived the capture half drop everything it relays.
    expected: Option<BTreeSet<PodUid>>,
    /// Questions for sockets of pods that are not made yet, answered when it is known whether they are.
    waiting: Vec<Question>,
    condition: Condition,
}

impl Hub {
    /// No pod and no proxy yet, for this node.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// The pods that snapshots must wait for: those wanted at the start. Until this is called, no snapshot ends.
    pub fn expect(&mut self, pods: BTreeSet<PodUid>) -> Vec<Effect> {
        self.expected = Some(pods.clone());
        let Some(newest) = self.newest else { return Vec::new() };
        if let Some(session) = self.sessions.get_mut(&newest).filter(|session| !session.snapshot_sent) {
            session.awaited.extend(pods);
        }
        let mut effects = self.answer_waiting();
        effects.extend(self.end_snapshot_if_complete(newest));
        effects
    }

    /// How many workers the newest proxy has, if there is one.
    #[must_use]
    pub fn workers(&self) -> Option<usize> {
        self.newest.and_then(|newest| self.sessions.get(&newest)).and_then(|session| session.workers)
    }

    /// Whether this proxy said hello, and is of this node.
    #[must_use]
    pub fn has_greeted(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.workers.is_some())
    }

    /// Whether a proxy is there that takes what is new.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.newest.is_some()
    }

    /// Whether a proxy is there that has said that it ends.
    #[must_use]
    pub fn has_draining(&self) -> bool {
        self.sessions.values().any(|session| session.draining)
    }

    /// How many proxies are connected.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.sessions.len()
    }

    /// Connections relayed for a pod by all proxies that know it; `None` while one of them has not said since the
    /// release began.
    #[must_use]
    pub fn relaying(&self, uid: &PodUid) -> Option<u64> {
        let counts = self.sessions.values().filter(|session| session.told.contains(uid));
        counts.map(|session| session.relaying.get(uid).copied()).sum()
    }

    /// Whether the pod is on its way out.
    #[must_use]
    pub fn is_releasing(&self, uid: &PodUid) -> bool {
        self.pods.get(uid).is_some_and(|pod| pod.releasing)
    }

    /// A proxy connected.
    pub fn connected(&mut self, id: SessionId) {
        self.sessions.insert(id, Session::default());
    }

    /// A proxy went away.
    pub fn disconnected(&mut self, id: SessionId) -> Vec<Effect> {
        self.sessions.remove(&id);
        self.waiting.retain(|question| question.session != id);
        self.elect()
    }

    /// The youngest proxy that takes something new serves; one that has just been elected is told everything.
    fn elect(&mut self) -> Vec<Effect> {
        let able = self.sessions.iter().filter(|(_, session)| session.workers.is_some() && !session.draining);
        let best = able.max_by_key(|(id, session)| (session.born, **id)).map(|(id, _)| *id);
        if best == self.newest {
            return Vec::new();
        }
        self.newest = best;
        best.map(|best| self.snapshot(best)).unwrap_or_default()
    }

    /// A proxy said something.
    pub fn said(&mut self, id: SessionId, message: ToCapture) -> Vec<Effect> {
        let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
        match (session.workers, message) {
            (None, ToCapture::Hello(hello)) if hello.node == self.node => {
                (session.workers, session.born) = (Some(hello.workers), hello.born);
                let mut effects = self.elect();
                if self.newest != Some(id) {
                    // An older one is back, after this half was away: it finishes what it has.
                    effects.push(send(id, ToProxy::Condition(self.condition.clone()), Vec::new()));
                    effects.extend(self.retire_older());
                }
                effects
            }
            (None, ToCapture::Hello(_)) => vec![Effect::Close(id, "the proxy serves another node")],
            (None, _) => vec![Effect::Close(id, "the proxy did not say hello first")],
            // Descriptors go past the hub, to the task of their pod.
            (Some(_), ToCapture::Holds { .. }) => Vec::new(),
            (Some(_), ToCapture::Hello(_)) => vec![Effect::Close(id, "the proxy said hello twice")],
            (Some(_), ToCapture::Ack { uid, error }) => {
                session.unacknowledged.remove(&uid);
                let mut effects = vec![Effect::Acknowledged(uid, error.map_or(Ok(()), Err))];
                effects.extend(self.retire_older());
                effects
            }
            (Some(_), ToCapture::WantSockets { uid, family, count }) => {
                self.answer(Question { session: id, uid, family, count }).into_iter().collect()
            }
            (Some(_), ToCapture::Draining) => {
                session.draining = true;
                self.elect()
            }
            (Some(_), ToCapture::Relaying { uid, count }) => {
                session.relaying.insert(uid, count);
                Vec::new()
            }
        }
    }

    /// A pod is captured, or something of it changed.
    pub fn put(&mut self, info: PodInfo, offer: Offer) -> Vec<Effect> {
        let uid = info.uid.clone();
        self.no_longer_expected(&uid);
        self.pods.insert(uid.clone(), Pod { info, offer, releasing: false });
        let mut effects = self.newest.map(|newest| self.tell(newest, &uid)).unwrap_or_default();
        effects.extend(self.answer_waiting());
        effects
    }

    /// A pod, or the listeners that were asked for in it, cannot be had now: the proxy does not wait for them.
    pub fn cannot(&mut self, uid: &PodUid) -> Vec<Effect> {
        self.no_longer_expected(uid);
        let mut effects = self.answer_waiting();
        effects.extend(self.newest.map(|newest| self.settle(newest, uid)).unwrap_or_default());
        effects
    }

    /// Dial sockets that a proxy asked for.
    pub fn sockets(&self, id: SessionId, uid: PodUid, family: Family, sockets: Vec<OwnedFd>) -> Vec<Effect> {
        vec![send(id, ToProxy::Sockets { uid, family }, sockets.into_iter().map(Arc::new).collect())]
    }

    /// How it stands with the capture; every proxy is told when it is news.
    pub fn condition(&mut self, condition: Condition) -> Vec<Effect> {
        if condition == self.condition {
            return Vec::new();
        }
        self.condition = condition;
        let greeted = self.sessions.iter().filter(|(_, session)| session.workers.is_some());
        greeted.map(|(id, _)| send(*id, ToProxy::Condition(self.condition.clone()), Vec::new())).collect()
    }

    /// A pod begins to leave the mesh.
    pub fn release(&mut self, uid: &PodUid) -> Vec<Effect> {
        let Some(pod) = self.pods.get_mut(uid) else {
            // Expected at the start, and not selected any more before it was offered to anybody.
            return self.cannot(uid);
        };
        pod.releasing = true;
        self.broadcast(uid, |session| _ = session.relaying.remove(uid), || ToProxy::Release { uid: uid.clone() })
    }

    /// A pod is captured no more: its listeners are closed here.
    pub fn remove(&mut self, uid: &PodUid) -> Vec<Effect> {
        self.pods.remove(uid);
        let forget = |session: &mut Session| {
            session.told.remove(uid);
            session.relaying.remove(uid);
            session.unacknowledged.remove(uid);
        };
        let mut effects = self.broadcast(uid, forget, || ToProxy::Remove { uid: uid.clone() });
        effects.extend(self.cannot(uid));
        effects
    }

    fn broadcast(&mut self, uid: &PodUid, change: impl Fn(&mut Session), message: impl Fn() -> ToProxy) -> Vec<Effect> {
        let told = self.sessions.iter_mut().filter(|(_, session)| session.told.contains(uid));
        told.map(|(id, session)| {
            change(session);
            send(*id, message(), Vec::new())
        })
        .collect()
    }

    /// Everything, to one proxy; pods whose listeners do not fit are awaited.
    fn snapshot(&mut self, id: SessionId) -> Vec<Effect> {
        let uids: Vec<_> = self.pods.keys().cloned().collect();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.snapshot_sent = false;
            session.retired = false;
            session.awaited = uids.iter().chain(self.expected.iter().flatten()).cloned().collect();
        }
        let mut effects = vec![send(id, ToProxy::Condition(self.condition.clone()), Vec::new())];
        for uid in &uids {
            effects.extend(self.tell(id, uid));
        }
        effects.extend(self.end_snapshot_if_complete(id));
        effects
    }

    fn tell(&mut self, id: SessionId, uid: &PodUid) -> Vec<Effect> {
        let (Some(pod), Some(session)) = (self.pods.get(uid), self.sessions.get_mut(&id)) else { return Vec::new() };
        let Some(workers) = session.workers else { return Vec::new() };
        if pod.offer.workers != workers {
            return vec![Effect::MakeListeners(uid.clone(), workers)];
        }
        session.told.insert(uid.clone());
        session.unacknowledged.insert(uid.clone());
        let (tags, descriptors) = pod.offer.listeners.iter().cloned().unzip();
        let mut effects = vec![send(id, ToProxy::Pod { info: pod.info.clone(), listeners: tags }, descriptors)];
        if pod.releasing {
            session.relaying.remove(uid);
            effects.push(send(id, ToProxy::Release { uid: uid.clone() }, Vec::new()));
        }
        effects.extend(self.settle(id, uid));
        effects
    }

    /// Sockets, or none for a pod that is not there. Nothing yet while the pod may still come: a capture half that has just
    /// started knows no pod, while proxies serve them all and ask.
    fn answer(&mut self, question: Question) -> Option<Effect> {
        let Question { session, uid, family, count } = question;
        if self.pods.contains_key(&uid) {
            return Some(Effect::MakeSockets(session, uid, family, count));
        }
        if self.expected.as_ref().is_none_or(|expected| expected.contains(&uid)) {
            self.waiting.push(Question { session, uid, family, count });
            return None;
        }
        Some(send(session, ToProxy::Sockets { uid, family }, Vec::new()))
    }

    fn answer_waiting(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.waiting).into_iter().filter_map(|question| self.answer(question)).collect()
    }

    fn no_longer_expected(&mut self, uid: &PodUid) {
        if let Some(expected) = &mut self.expected {
            expected.remove(uid);
        }
    }

    fn settle(&mut self, id: SessionId, uid: &PodUid) -> Vec<Effect> {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.awaited.remove(uid);
        }
        self.end_snapshot_if_complete(id)
    }

    fn end_snapshot_if_complete(&mut self, id: SessionId) -> Vec<Effect> {
        match self.sessions.get_mut(&id) {
            Some(session) if self.expected.is_some() && session.awaited.is_empty() && !session.snapshot_sent => {
                session.snapshot_sent = true;
            }
            _ => return Vec::new(),
        }
        let mut effects = vec![send(id, ToProxy::SnapshotSent, Vec::new())];
        effects.extend(self.retire_older());
        effects
    }

    /// When the newest has answered for every pod, the others may stop accepting.
    fn retire_older(&mut self) -> Vec<Effect> {
        let Some(newest) = self.newest else { return Vec::new() };
        let ready = self
            .sessions
            .get(&newest)
            .is_some_and(|session| session.snapshot_sent && session.unacknowledged.is_empty());
        if !ready {
            return Vec::new();
        }
        let older = self
            .sessions
            .iter_mut()
            .filter(|(id, session)| **id != newest && session.workers.is_some() && !session.retired);
        older
            .map(|(id, session)| {
                session.retired = true;
                send(*id, ToProxy::Retire, Vec::new())
            })
            .collect()
    }
}

fn send(id: SessionId, message: ToProxy, descriptors: Vec<Arc<OwnedFd>>) -> Effect {
    Effect::Send(id, Outgoing { message, descriptors })
}

#[cfg(test)]
mod tests;
