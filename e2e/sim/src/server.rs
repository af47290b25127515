//! The control plane as a process: what it keeps on disk, what it loses when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_manifest::Store;
use weft_model::{Mesh, Resource, Uid};
use weft_wire::convert::ResourceType;
use weft_wire::delta::{Limits, SYNCED, Session};
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds_server::catalog::Catalog;
use weft_xds_server::placement::Placement;
use weft_xds_server::serve::{Caller, Captured, Conversation, View};
use weft_xds_server::translate::{MeshSettings, translate};

use crate::plant::Plant;
use crate::truth::{NODES, PODS, Truth, mesh_of};

/// Few per response, so that a stream is cut in the middle of its first answer, too.
const LIMITS: Limits = Limits { resources: 3, bytes: 1 << 20 };

/// What another control plane sends at once: it does not know how to say that there is more to come.
const WHOLE: Limits = Limits { resources: usize::MAX, bytes: usize::MAX };
/// How often it looks at its source before it has read all of it.
const LOOKS: u32 = 6;

/// What `captured.json` holds: it outlives the process.
pub type Disk = BTreeMap<&'static str, BTreeSet<Uid>>;

/// A running server.
#[derive(Debug, Default)]
pub struct Server {
    programme: Option<Programme>,
    stranger: Option<Stranger>,
    conversations: BTreeMap<usize, Conversation>,
    plant: Option<Plant>,
    /// In place of conversations, with a planted fault.
    orderless: BTreeMap<(usize, ResourceType), Session>,
}

/// A control plane of another make (istiod): it answers before it has read its source, and never says when it has.
#[derive(Debug)]
struct Stranger {
    /// Pods of which it has read; with none of them, it has read no policies either.
    knows: BTreeSet<Uid>,
    looks: u32,
}

/// Everything of one version.
#[derive(Debug)]
struct Programme {
    catalog: Catalog,
    mesh: Mesh,
    /// Which version of the source it was made from.
    version: usize,
}

/// One response, and what it was made from.
#[derive(Debug, Clone)]
pub struct Told {
    /// The message.
    pub response: DeltaDiscoveryResponse,
    /// Version of the source.
    pub version: usize,
    /// Not all of that version was read.
    pub ignorant: bool,
}

impl Server {
    /// Just started.
    #[must_use]
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// Another control plane has just started, and knows two pods, this one and the next; or nothing, behind the last one.
    #[must_use]
    pub fn stranger(first: usize, plant: Option<Plant>) -> Self {
        let knows = PODS.iter().cycle().skip(first).take(2).map(|pod| pod.uid());
        let knows = if first < PODS.len() { knows.collect() } else { BTreeSet::new() };
        Self { stranger: Some(Stranger { knows, looks: LOOKS }), ..Self::new(plant) }
    }

    /// Looks at the source.
    pub fn look(&mut self) {
        self.stranger.iter_mut().for_each(|stranger| stranger.looks = stranger.looks.saturating_sub(1));
    }

    /// Whether it answers without having read its source.
    #[must_use]
    pub fn is_ignorant(&self) -> bool {
        self.stranger.as_ref().is_some_and(|stranger| stranger.looks > 0)
    }

    /// Whether it is ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.stranger.is_none()
    }

    fn keeps_order(&self) -> bool {
        self.plant != Some(Plant::WorkloadsFirst)
    }

    /// Reads the source, or what the nodes say anew.
    pub fn publish(&mut self, truth: &Truth, version: usize, disk: &Disk) {
        let settings = MeshSettings::default();
        let forgetful = (self.plant == Some(Plant::ForgetsLastGood)).then(|| {
            let files = truth.version(version).facts.files();
            Arc::new(Store::default().apply(&files).objects)
        });
        let objects = forgetful.as_ref().unwrap_or(&truth.version(version).objects);
        let placement = Placement::of(&translate(objects, &BTreeSet::new(), &settings));
        let captured = captured(disk).effective(|uid| placement.node_of(uid).map(|node| &**node));
        let mut resources = translate(objects, &captured, &settings);
        if let Some(Stranger { knows, .. }) = self.stranger.as_ref().filter(|_| self.is_ignorant()) {
            resources.retain(|one| match one {
                Resource::Workload(workload) => knows.contains(&workload.uid),
                _ => !knows.is_empty(),
            });
        }
        let before = self.programme.take().map(|programme| programme.catalog).unwrap_or_default();
        let (catalog, _) = before.update(&resources);
        self.programme = Some(Programme { catalog, mesh: mesh_of(resources), version });
    }

    /// The version that is served; none before the source was read.
    #[must_use]
    pub fn version(&self) -> Option<usize> {
        self.programme.as_ref().map(|programme| programme.version)
    }

    /// What is served, as an index.
    #[must_use]
    pub fn mesh(&self) -> Option<&Mesh> {
        self.programme.as_ref().map(|programme| &programme.mesh)
    }

    /// A node's stream is gone.
    pub fn hang_up(&mut self, node: usize) {
        self.conversations.remove(&node);
        self.orderless.retain(|(of, _), _| *of != node);
    }

    /// A node's request arrives.
    pub fn request(&mut self, node: usize, mut request: DeltaDiscoveryRequest) {
        if !self.is_ours() {
            // It sends what changes, and takes what it has sent for held, whatever the answer says: as istiod does.
            request.error_detail = None;
        }
        let Some(kind) = ResourceType::from_url(&request.type_url) else { return };
        if self.keeps_order() {
            let limits = if self.is_ours() { LIMITS } else { WHOLE };
            let conversation = self.conversations.entry(node).or_insert_with(|| Conversation::new(limits));
            let _acknowledged = conversation.request(kind, request);
        } else {
            let session = self.orderless.entry((node, kind)).or_insert_with(|| Session::new(kind, LIMITS));
            let _acknowledged = session.request(request);
        }
    }

    /// What a node must be told now.
    pub fn due(&mut self, node: usize) -> Vec<Told> {
        let (ours, ignorant) = (self.is_ours(), self.is_ignorant());
        let Some(programme) = &self.programme else { return Vec::new() };
        let caller = Caller { node: NODES[node].into() };
        let view = View::new(&programme.catalog, &caller);
        let mut due = Vec::new();
        if let Some(conversation) = self.conversations.get_mut(&node) {
            due.extend(conversation.due(&view).into_iter().map(|(_, response)| response));
        }
        for kind in [ResourceType::Address, ResourceType::Authorization] {
            let response = self.orderless.get_mut(&(node, kind)).and_then(|session| session.respond(&view));
            due.extend(response.map(|mut response| {
                response.system_version_info.insert_str(0, SYNCED);
                response
            }));
        }
        let told = |mut response: DeltaDiscoveryResponse| {
            let version = &mut response.system_version_info;
            if !ours && let Some(rest) = version.strip_prefix(SYNCED) {
                *version = rest.to_owned();
            }
            Told { response, version: programme.version, ignorant }
        };
        due.into_iter().map(told).collect()
    }

    /// What a node holds of a type, as far as it said so.
    #[must_use]
    pub fn session(&self, node: usize, kind: ResourceType) -> Option<&Session> {
        if self.keeps_order() {
            self.conversations.get(&node)?.session(kind)
        } else {
            self.orderless.get(&(node, kind))
        }
    }

    /// Whether the node has asked for both types, and every answer was acknowledged.
    #[must_use]
    pub fn is_settled(&self, node: usize) -> bool {
        let settled = |kind| self.session(node, kind).is_some_and(|session| !session.awaits_answer());
        ResourceType::ALL.into_iter().all(settled)
    }
}

/// The server's own type, which only its file makes.
fn captured(disk: &Disk) -> Captured {
    serde_json::from_value(serde_json::json!({ "nodes": disk })).unwrap_or_default()
}
