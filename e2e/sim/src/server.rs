//! The control plane as a process: what it keeps on disk, what it loses when it is killed.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::{Mesh, Uid};
use weft_wire::convert::ResourceType;
use weft_wire::delta::{Limits, Session};
use weft_wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds_server::catalog::Catalog;
use weft_xds_server::placement::Placement;
use weft_xds_server::serve::{Caller, Captured, Conversation, View};
use weft_xds_server::translate::{MeshSettings, translate};

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
    /// Reads the source, or what the nodes say anew.
    pub fn publish(&mut self, truth: &Truth, version: usize, disk: &Disk) {
        let settings = MeshSettings::default();
        let objects = &truth.version(version).objects;
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
    }

    /// A node's request arrives.
    pub fn request(&mut self, node: usize, request: DeltaDiscoveryRequest) {
        if let Some(kind) = ResourceType::from_url(&request.type_url) {
            let conversation = self.conversations.entry(node).or_insert_with(|| Conversation::new(LIMITS));
            let _acknowledged = conversation.request(kind, request);
        }
    }

    /// What a node must be told now.
    pub fn due(&mut self, node: usize) -> Vec<Told> {
        let (Some(programme), Some(conversation)) = (&self.programme, self.conversations.get_mut(&node)) else {
            return Vec::new();
        };
        let caller = Caller { node: NODES[node].into() };
        let due = conversation.due(&View::new(&programme.catalog, &caller));
        due.into_iter().map(|(_, response)| Told { response, version: programme.version }).collect()
    }

    /// What a node holds of a type, as far as it said so.
    #[must_use]
    pub fn session(&self, node: usize, kind: ResourceType) -> Option<&Session> {
        self.conversations.get(&node)?.session(kind)
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
