//! The control plane as a process: what it keeps on disk, what it loses when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_manifest::Store;
use weft_model::{Mesh, Uid};
use weft_wire::convert::ResourceType;
use weft_wire::delta::{Limits, Session};
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds_server::catalog::Catalog;
use weft_xds_server::placement::Placement;
use weft_xds_server::serve::{Caller, Captured, Conversation, View};
use weft_xds_server::translate::{MeshSettings, translate};

use crate::plant::Plant;
use crate::truth::{NODES, Truth, mesh_of};

/// Few per response, so that a stream is cut in the middle of its first answer, too.
const LIMITS: Limits = Limits { resources: 3, bytes: 1 << 20 };

/// What `captured.json` holds: it outlives the process.
pub type Disk = BTreeMap<&'static str, BTreeSet<Uid>>;

/// A running server.
#[derive(Debug, Default)]
pub struct Server {
    programme: Option<Programme>,
    conversations: BTreeMap<usize, Conversation>,
    plant: Option<Plant>,
    /// In place of conversations, with a planted fault.
    orderless: BTreeMap<(usize, ResourceType), Session>,
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
}

impl Server {
    /// Just started.
    #[must_use]
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
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
        let resources = translate(objects, &captured, &settings);
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
    pub fn request(&mut self, node: usize, request: DeltaDiscoveryRequest) {
        let Some(kind) = ResourceType::from_url(&request.type_url) else { return };
        if self.keeps_order() {
            let conversation = self.conversations.entry(node).or_insert_with(|| Conversation::new(LIMITS));
            let _acknowledged = conversation.request(kind, request);
        } else {
            let session = self.orderless.entry((node, kind)).or_insert_with(|| Session::new(kind, LIMITS));
            let _acknowledged = session.request(request);
        }
    }

    /// What a node must be told now.
    pub fn due(&mut self, node: usize) -> Vec<Told> {
        let Some(programme) = &self.programme else { return Vec::new() };
        let caller = Caller { node: NODES[node].into() };
        let view = View::new(&programme.catalog, &caller);
        let mut due = Vec::new();
        if let Some(conversation) = self.conversations.get_mut(&node) {
            due.extend(conversation.due(&view).into_iter().map(|(_, response)| response));
        }
        for kind in [ResourceType::Address, ResourceType::Authorization] {
            due.extend(self.orderless.get_mut(&(node, kind)).and_then(|session| session.respond(&view)));
        }
        due.into_iter().map(|response| Told { response, version: programme.version }).collect()
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
