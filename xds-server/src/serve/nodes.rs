//! Which nodes are connected, and what each of them has: for the admin page and for `weft config`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;
use weft_wire::convert::ResourceType;
use weft_wire::delta::SessionStatus;

/// Streams of one node at once: old and new agent during an upgrade, some that the network lost and PING has not found
/// yet, and room. More are a fault of the agent, and each costs memory here.
const STREAMS_PER_NODE: usize = 8;

/// What a node has acknowledged in whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The state of the policies, [`Catalog::stamp`](crate::catalog::Catalog::stamp).
    pub stamp: u64,
    /// Policies that it could not use.
    pub refused: BTreeSet<Arc<str>>,
}

/// One stream, as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct StreamView {
    /// Counts up over the life of the server.
    pub stream: u64,
    /// What the client calls itself: program and version.
    pub client: String,
    /// Where it comes from.
    pub from: String,
    /// When it was opened.
    pub since: SystemTime,
    /// Each type that it asked for.
    pub types: BTreeMap<ResourceType, SessionStatus>,
    /// What it has acknowledged in whole last.
    #[serde(skip)]
    pub settled: Option<Settled>,
}

/// One node that was connected at least once.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodeStatus {
    /// Open streams, oldest first; several during an upgrade of the agent.
    pub streams: Vec<StreamView>,
    /// How the last stream ended, and when.
    pub last_end: Option<(SystemTime, String)>,
}

/// The table. Cheap to clone; all clones are one table.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    inner: Arc<Mutex<Table>>,
    /// Counts what [`Self::settled`] has to tell anew.
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    nodes: BTreeMap<Arc<str>, NodeStatus>,
}

impl Nodes {
    /// Nobody was here yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything, by node.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Arc<str>, NodeStatus> {
        self.lock().nodes.clone()
    }

    /// How many streams are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.lock().nodes.values().map(|node| node.streams.len()).sum()
    }

    /// What each node has acknowledged in whole: by its newest stream that has.
    #[must_use]
    pub fn settled(&self) -> BTreeMap<Arc<str>, Settled> {
        let table = self.lock();
        let newest = |status: &NodeStatus| status.streams.iter().rev().find_map(|stream| stream.settled.clone());
        table.nodes.iter().filter_map(|(node, status)| Some((node.clone(), newest(status)?))).collect()
    }

    /// Changes with [`Self::settled`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Enters a stream; none when the node has too many.
    pub(super) fn open(&self, node: &Arc<str>, client: String, from: String) -> Option<OpenStream> {
        let mut table = self.lock();
        let stream = table.next;
        let status = table.nodes.entry(node.clone()).or_default();
        if status.streams.len() >= STREAMS_PER_NODE {
            return None;
        }
        status.streams.push(StreamView {
            stream,
            client,
            from,
            since: SystemTime::now(),
            types: BTreeMap::new(),
            settled: None,
        });
        table.next += 1;
        Some(OpenStream { nodes: self.clone(), node: node.clone(), stream, end: "the stream was dropped".to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry of the table, for as long as the stream is open.
#[derive(Debug)]
pub(super) struct OpenStream {
    nodes: Nodes,
    node: Arc<str>,
    stream: u64,
    end: String,
}

impl OpenStream {
    pub(super) fn note(&self, kind: ResourceType, status: SessionStatus) {
        let mut table = self.nodes.lock();
        let streams = table.nodes.get_mut(&self.node).map(|node| &mut node.streams);
        if let Some(view) = streams.into_iter().flatten().find(|view| view.stream == self.stream) {
            view.types.insert(kind, status);
        }
    }

    /// The node has everything of a catalog.
    pub(super) fn settle(&self, settled: Settled) {
        let mut table = self.nodes.lock();
        let streams = table.nodes.get_mut(&self.node).map(|node| &mut node.streams);
        let view = streams.into_iter().flatten().find(|view| view.stream == self.stream);
        if let Some(view) = view.filter(|view| view.settled.as_ref() != Some(&settled)) {
            view.settled = Some(settled);
            self.nodes.changes.send_modify(|count| *count += 1);
        }
    }

    /// What the client calls itself, once it has said so.
    pub(super) fn name(&self, client: String) {
        let mut table = self.nodes.lock();
        let streams = table.nodes.get_mut(&self.node).map(|node| &mut node.streams);
        if let Some(view) = streams.into_iter().flatten().find(|view| view.stream == self.stream) {
            view.client = client;
        }
    }

    /// What to write down as the end of the stream when this is dropped.
    pub(super) fn set_end(&mut self, end: String) {
        self.end = end;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut table = self.nodes.lock();
        if let Some(node) = table.nodes.get_mut(&self.node) {
            node.streams.retain(|view| view.stream != self.stream);
            node.last_end = Some((SystemTime::now(), std::mem::take(&mut self.end)));
            self.nodes.changes.send_modify(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_come_go_and_are_bounded() {
        let nodes = Nodes::new();
        let node: Arc<str> = "node-1".into();
        let open = || nodes.open(&node, "ztunnel".to_owned(), String::new());
        let mut streams: Vec<OpenStream> = (0..STREAMS_PER_NODE).map(|_| open().unwrap()).collect();
        assert!(open().is_none());
        streams[1].note(ResourceType::Address, SessionStatus { held: 3, ..SessionStatus::default() });
        assert_eq!(nodes.all()[&node].streams[1].types[&ResourceType::Address].held, 3);
        let changes = nodes.changes();
        let settled = |stamp| Settled { stamp, refused: BTreeSet::new() };
        streams[2].settle(settled(1));
        streams[1].settle(settled(2));
        assert_eq!(nodes.settled()[&node], settled(1), "the newer stream's");
        assert!(changes.has_changed().unwrap());
        streams[0].set_end("bye".to_owned());
        streams.remove(0);
        assert_eq!((nodes.streams(), nodes.all()[&node].last_end.as_ref().unwrap().1.as_str()), (7, "bye"));
        assert!(open().is_some());
    }
}
