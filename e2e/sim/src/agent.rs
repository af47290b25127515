//! The proxy half of one node: what it knows, serves and says. All of it is lost when it is killed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use weft_model::address::OriginalDst;
use weft_model::authz::Connection;
use weft_model::{Change, Mesh, Reason, ResourceKey, SpiffeId, Uid, Workload};
use weft_node_agent::handover::PodInfo;
use weft_node_agent::inbound::{Admission, Caller, Denied, admit_local, admit_plaintext, admit_tunnel};
use weft_node_agent::node_info::NodeInfo;
use weft_node_agent::outbound::{Decision, Question, Surroundings, decide};
use weft_node_agent::pods::PodUid;
use weft_node_agent::worker::own::own_workload;
use weft_node_agent::worker::served::Served;
use weft_wire::convert::ResourceType;
use weft_wire::delta::{CONFIRMATION, Client, Due, MORE_TO_COME, Subscriber, Subscription};
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds_server::translate::MeshSettings;

use crate::check::{self, Broken};
use crate::plant::Plant;
use crate::server::Told;
use crate::truth::{NODES, PODS};

/// What the capture half says to the proxy half.
#[derive(Debug, Clone)]
pub enum Handover {
    /// Serve it.
    Pod(usize),
    /// It leaves.
    Release(usize),
    /// It is gone.
    Remove(usize),
    /// That was all.
    SnapshotEnd,
}

/// A stream to the control plane: in order, until it breaks.
#[derive(Debug, Default)]
pub struct Stream {
    /// On the way to the server.
    pub up: VecDeque<DeltaDiscoveryRequest>,
    /// On the way to the agent.
    pub down: VecDeque<Told>,
    /// Responses that were taken in and wait for their answer, by type and nonce.
    taken: BTreeMap<(String, String), DeltaDiscoveryResponse>,
}

/// A running proxy half.
#[derive(Debug)]
pub struct Agent {
    index: usize,
    node: NodeInfo,
    client: Client,
    /// Its clock, which only [`Self::wait`] moves.
    now: Instant,
    mesh: Mesh,
    served: Served,
    /// To the control plane, when it stands.
    pub stream: Option<Stream>,
    /// To the capture half, when it stands.
    pub handover: Option<VecDeque<Handover>>,
    /// Pods that the capture half has named since it was connected; none once the snapshot is over.
    named: Option<BTreeSet<PodUid>>,
    /// No version of the source before this one can be what it knows.
    pub floor: Option<usize>,
    /// It has had everything of a control plane that had read its source, and has taken nothing away for want of another word.
    pub informed: bool,
    /// It has believed one that had not, as it must when it knows no better, or when nothing else is said for a while.
    pub misled: bool,
    /// What was told by the report before, so that only news is told.
    reported: Option<BTreeSet<Uid>>,
    plant: Option<Plant>,
    /// With a planted fault: it doubts nothing.
    believes: bool,
    /// What a planted fault keeps back.
    late: Vec<Change>,
    /// What a planted fault has permitted before.
    permitted: Vec<(usize, Option<SpiffeId>, Connection)>,
}

struct Here<'a>(&'a Served);

impl Surroundings for Here<'_> {
    fn outstanding(&self, _: &Uid) -> u32 {
        0
    }

    fn serves(&self, workload: &Workload, address: IpAddr) -> bool {
        self.0.serving(workload, address).is_some()
    }
}

impl Agent {
    /// Just started.
    #[must_use]
    pub fn new(node: usize, plant: Option<Plant>) -> Self {
        let MeshSettings { cluster, trust_domain, network, .. } = MeshSettings::default();
        Self {
            index: node,
            node: NodeInfo { name: NODES[node].into(), network, cluster, trust_domain },
            client: Client::new(ResourceType::ALL.map(|kind| (kind, Subscription::Everything)), CONFIRMATION),
            now: Instant::now(),
            mesh: Mesh::default(),
            served: Served::default(),
            stream: None,
            handover: None,
            named: None,
            floor: None,
            informed: false,
            misled: false,
            reported: None,
            plant,
            believes: false,
            late: Vec::new(),
            permitted: Vec::new(),
        }
    }

    /// What it knows.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Whether the first whole answer of both types is there: before that it asks for no pods.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        ResourceType::ALL.iter().all(|kind| self.client.subscriber(*kind).is_some_and(Subscriber::is_complete))
    }

    /// Whether it doubts what it was told.
    #[must_use]
    pub fn is_doubting(&self) -> bool {
        self.client.is_doubting()
    }

    /// The control plane has told everything, and it is in force.
    pub fn settled(&mut self, version: Option<usize>) {
        self.floor = version;
        (self.informed, self.misled) = (true, false);
    }

    /// Opens a stream: both types ask, with what is held.
    pub fn connect(&mut self) {
        if self.plant == Some(Plant::ForgetsWithTheStream) {
            self.mesh = Mesh::default();
        }
        self.believes = self.plant == Some(Plant::BelievesEmptyAnswers);
        let mut up = VecDeque::from(self.client.open(self.now));
        if self.plant == Some(Plant::AsksForWorkloadsFirst) {
            up.make_contiguous().reverse();
        }
        self.stream = Some(Stream { up, ..Stream::default() });
    }

    /// Takes the next response in: applies, then acknowledges.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn receive(&mut self) -> Result<(), Broken> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let Some(Told { response, version, ignorant }) = stream.down.pop_front() else { return Ok(()) };
        stream.taken.insert((response.type_url.clone(), response.nonce.clone()), response.clone());
        self.floor.get_or_insert(version);
        self.misled |= ignorant && !self.informed;
        let empty = response.resources.is_empty();
        let Ok(taken) = self.client.take(response, self.now) else { return Ok(()) };
        let mut due = taken.due;
        if self.plant == Some(Plant::EmptyAnswerForgetsPolicies) && empty && taken.kind == ResourceType::Authorization {
            let gone = self.mesh.policies().map(|one| Change::Remove(ResourceKey::Policy(one.key.clone())));
            due.changes.push((taken.kind, gone.collect()));
        }
        self.obtain(due)?;
        if self.believes {
            let due = self.client.confirm(self.now + CONFIRMATION);
            self.obtain(due)?;
        }
        if self.informed { check::nobody_is_forgotten(&self.mesh, self.index) } else { Ok(()) }
    }

    /// So much time passes without a word that what was doubted is believed.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn wait(&mut self) -> Result<(), Broken> {
        let Some(until) = self.client.wake().filter(|_| self.stream.is_some()) else { return Ok(()) };
        self.now = until;
        self.believes |= self.plant == Some(Plant::BelievesLateAnswers);
        let due = self.client.confirm(until);
        let gone = due.changes.iter().flat_map(|(_, changes)| changes).any(|one| matches!(one, Change::Remove(_)));
        if gone {
            (self.informed, self.misled) = (false, true);
        }
        self.obtain(due)
    }

    /// Puts in force what is due, and answers then. Each type's changes are seen by connections before those of the next.
    fn obtain(&mut self, due: Due) -> Result<(), Broken> {
        for (_, mut changes) in due.changes {
            if self.plant == Some(Plant::AcknowledgesFirst) {
                std::mem::swap(&mut changes, &mut self.late);
            }
            self.mesh = self.mesh.apply(changes);
            check::policies_are_there(&self.mesh, self.index)?;
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        for mut reply in due.replies {
            if self.plant == Some(Plant::AcknowledgesDoubted) {
                reply.error_detail = None;
            }
            let answered = stream.taken.remove(&(reply.type_url.clone(), reply.response_nonce.clone()));
            // Of an answer in pieces each is answered, so that the next one comes; only the last one says that all is there.
            let whole = answered.filter(|one| !one.system_version_info.ends_with(MORE_TO_COME));
            if let Some(response) = whole.filter(|_| reply.error_detail.is_none()) {
                check::answer_is_in_force(&response, &self.mesh, self.index)?;
            }
            stream.up.push_back(reply);
        }
        Ok(())
    }

    /// The capture half is there, and says what it has.
    pub fn meet(&mut self, words: Vec<Handover>) {
        self.named = Some(BTreeSet::new());
        self.handover = Some(words.into());
    }

    /// Takes the next word of the capture half in.
    pub fn obey(&mut self) {
        let Some(word) = self.handover.as_mut().and_then(VecDeque::pop_front) else { return };
        match word {
            Handover::Pod(pod) => {
                self.named.iter_mut().for_each(|named| _ = named.insert(uid(pod)));
                if let Ok(next) = self.served.with(&self.node, Arc::new(info(pod))) {
                    self.served = next;
                }
            }
            Handover::Release(pod) => self.served = self.served.leaving(&uid(pod)),
            Handover::Remove(pod) => self.served = self.served.without(&uid(pod)),
            Handover::SnapshotEnd => {
                let named = self.named.take().unwrap_or_default();
                let gone: Vec<PodUid> = self.served.pods().map(|pod| pod.info.uid.clone()).collect();
                for uid in gone.iter().filter(|uid| !named.contains(*uid)) {
                    self.served = self.served.without(uid);
                }
                self.served = self.served.completed();
            }
        }
    }

    /// Whether it serves the pod.
    #[must_use]
    pub fn serves(&self, pod: usize) -> bool {
        self.served.pod(&uid(pod)).is_some()
    }

    /// Whether it answers tunnels to the pod that the mesh should know of.
    #[must_use]
    pub fn offers(&self, pod: usize) -> bool {
        self.served.pod(&uid(pod)).is_some_and(|pod| !pod.leaving)
    }

    /// The report that is due, if there is news or `anew`. None before the capture half has named all pods.
    pub fn report(&mut self, anew: bool) -> Option<BTreeSet<Uid>> {
        if !self.served.is_complete() {
            return None;
        }
        let staying = self.served.pods().filter(|pod| !pod.leaving);
        let now: BTreeSet<Uid> = staying.map(|pod| self.node.workload_uid(&pod.info)).collect();
        if !anew && self.reported.as_ref() == Some(&now) {
            return None;
        }
        self.reported = Some(now.clone());
        Some(now)
    }

    /// A report did not arrive: it is due again.
    pub fn report_failed(&mut self) {
        self.reported = None;
    }

    /// Where a captured call of a served pod goes.
    #[must_use]
    pub fn decide(&self, from: usize, to: SocketAddr, dice: &mut StdRng) -> Decision {
        let served = self.served.pod(&uid(from));
        let workload = served.and_then(|pod| own_workload(&self.mesh, &self.node, &pod.info));
        let Some(source) = workload else { return Decision::Refuse(Reason::UnknownWorkload) };
        let question = Question { mesh: &self.mesh, source, original: OriginalDst(to), exclude: &[] };
        let decision = decide(&question, &Here(&self.served), dice);
        match (self.plant, decision) {
            (Some(Plant::AcceptsNeighbours), Decision::Tunnel(mut plan)) => {
                let all = self.mesh.workloads().filter(|one| one.namespace == plan.workload.namespace);
                plan.peers = all.filter_map(|one| one.identity().ok()).collect();
                Decision::Tunnel(plan)
            }
            (_, decision) => decision,
        }
    }

    /// Whether a call that arrives at a served pod is let in; with what was checked.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&mut self, to: usize, way: &Way, client: SocketAddr) -> Result<Connection, Reason> {
        let known = |(pod, who, connection): &(usize, Option<SpiffeId>, Connection)| {
            (*pod == to && *who == way.identity()).then(|| connection.clone())
        };
        if let Some(connection) = self.permitted.iter().find_map(known) {
            return Ok(connection);
        }
        let admitted = self.judge(to, way, client);
        if let (Some(Plant::CachesPermits), Ok(connection)) = (self.plant, &admitted) {
            self.permitted.push((to, way.identity(), connection.clone()));
        }
        admitted
    }

    fn judge(&self, to: usize, way: &Way, client: SocketAddr) -> Result<Connection, Reason> {
        let Some(pod) = self.served.pod(&uid(to)) else { return Err(Reason::UnknownWorkload) };
        let Some(workload) = own_workload(&self.mesh, &self.node, &pod.info) else {
            return Err(Reason::UnknownWorkload);
        };
        let target = SocketAddr::new(PODS[to].ip(), crate::truth::PORT);
        let caller = |identity: &SpiffeId| Caller { client, arrived_at: target.ip(), identity: Some(identity.clone()) };
        let claimed = self.mesh.workload(&PODS[CLAIMED].uid()).and_then(|one| one.identity().ok());
        let admitted: Result<Admission, Denied> = match way {
            Way::Tunnel(_) if self.plant == Some(Plant::BelievesBaggage) && claimed.is_some() => {
                let claim = Caller { client, arrived_at: target.ip(), identity: claimed };
                admit_tunnel(&self.mesh, workload, &target.into(), &claim)
            }
            Way::Tunnel(identity) => admit_tunnel(&self.mesh, workload, &target.into(), &caller(identity)),
            Way::Local(identity) => admit_local(&self.mesh, workload, &caller(identity), target),
            Way::Plaintext => admit_plaintext(&self.mesh, workload, client, target),
        };
        admitted.map(|admission| admission.connection).map_err(|denied| denied.reason)
    }
}

/// How a call arrives.
#[derive(Debug, Clone)]
pub enum Way {
    /// Over HBONE, with a proved identity.
    Tunnel(SpiffeId),
    /// From a pod of the same node.
    Local(SpiffeId),
    /// As it is.
    Plaintext,
}

impl Way {
    /// Who was proved to call.
    #[must_use]
    pub fn identity(&self) -> Option<SpiffeId> {
        match self {
            Self::Tunnel(identity) | Self::Local(identity) => Some(identity.clone()),
            Self::Plaintext => None,
        }
    }
}

/// The pod whose name liars put into headers: `web`, which may call more than others.
const CLAIMED: usize = 0;

/// The capture half's name of a pod.
#[must_use]
pub fn uid(pod: usize) -> PodUid {
    PodUid::from(PODS[pod].name)
}

fn info(pod: usize) -> PodInfo {
    let facts = &PODS[pod];
    PodInfo {
        uid: uid(pod),
        name: facts.name.to_owned(),
        namespace: facts.namespace.to_owned(),
        service_account: facts.name.to_owned(),
        addresses: vec![facts.ip()],
        node: NODES[facts.node].to_owned(),
        strict: false,
    }
}
