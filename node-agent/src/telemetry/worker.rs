//! The counters of one worker, and the sum over all of them.
//!
//! A worker locks only its own table, once when a connection opens and when one is refused; the other party is the scrape,
//! which holds the lock only while it copies pointers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use weft_model::{PolicyKey, Reason};

use super::edge::{Edge, EdgeCounts, EdgeKey};
use super::queue::{self, Finished, Lines, Sender};
use super::record::{ConnectionRecord, Direction};

/// Edges that one worker counts apart. A node of 250 pods, each with 20 peers, makes 5,000; a table full of 16,384 edges
/// is about 8 MB. What comes beyond is counted on one edge without names, so that totals stay right.
const EDGE_LIMIT: usize = 16_384;

/// The counters of one worker.
#[derive(Debug, Default)]
struct Table {
    /// By [`EdgeKey::bucket`]; more than one in a bucket is rare.
    edges: HashMap<u64, Vec<Arc<Edge>>>,
    /// How many edges there are.
    count: usize,
    /// What does not fit, by direction.
    overflow: [Option<Arc<Edge>>; 2],
    rare: Rare,
}

/// What most connections do not touch.
#[derive(Debug, Default, Clone)]
struct Rare {
    refusals: HashMap<(Direction, Reason), u64>,
    shadow: HashMap<(PolicyKey, Reason), u64>,
}

impl Table {
    fn edge(&mut self, record: &ConnectionRecord, reason: Option<Reason>) -> Arc<Edge> {
        let bucket = EdgeKey::bucket(record, reason);
        let known = self.edges.get(&bucket).and_then(|edges| edges.iter().find(|edge| edge.key.is(record, reason)));
        if let Some(edge) = known {
            return edge.clone();
        }
        if self.count >= EDGE_LIMIT {
            let overflow = &mut self.overflow[usize::from(record.direction == Direction::Inbound)];
            return overflow.get_or_insert_with(|| edge(EdgeKey::overflow(record.direction))).clone();
        }
        let edge = edge(EdgeKey::of(record, reason));
        self.edges.entry(bucket).or_default().push(edge.clone());
        self.count += 1;
        edge
    }

    fn all(&self) -> Vec<Arc<Edge>> {
        self.edges.values().flatten().chain(self.overflow.iter().flatten()).cloned().collect()
    }

    fn count_reason(&mut self, record: &ConnectionRecord) {
        if let Some(shadow) = &record.shadow {
            *self.rare.shadow.entry((shadow.policy.clone(), shadow.reason)).or_default() += 1;
        }
        if let Some(reason) = record.reason {
            self.edge(record, Some(reason)).counts.failed.add(1);
            *self.rare.refusals.entry((record.direction, reason)).or_default() += 1;
        }
    }
}

fn edge(key: EdgeKey) -> Arc<Edge> {
    Arc::new(Edge { key, counts: EdgeCounts::default() })
}

/// The sum over all workers.
#[derive(Debug, Default)]
pub(super) struct Total {
    pub(super) edges: HashMap<EdgeKey, EdgeTotal>,
    pub(super) refusals: HashMap<(Direction, Reason), u64>,
    pub(super) shadow: HashMap<(PolicyKey, Reason), u64>,
}

/// What one edge has seen on all workers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EdgeTotal {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) failed: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// The telemetry of the whole agent: makes the workers' parts and sums them.
#[derive(Debug, Clone)]
pub struct Telemetry {
    tables: Arc<Mutex<Vec<Arc<Mutex<Table>>>>>,
    log: Sender,
}

impl Telemetry {
    /// The telemetry, and the queue for the log writer.
    #[must_use]
    pub fn new() -> (Self, Lines) {
        let (log, lines) = queue::queue();
        (Self { tables: Arc::default(), log }, lines)
    }

    /// The part of one more worker.
    #[must_use]
    pub fn worker(&self) -> WorkerTelemetry {
        let table = Arc::default();
        lock(&self.tables).push(Arc::clone(&table));
        WorkerTelemetry { table, log: self.log.clone() }
    }

    /// Log lines that were lost because the writer fell behind.
    pub(super) fn dropped(&self) -> u64 {
        self.log.dropped()
    }

    /// The sum over all workers.
    pub(super) fn total(&self) -> Total {
        let mut sum = Total::default();
        for table in lock(&self.tables).iter() {
            let (edges, rare) = {
                let table = lock(table);
                (table.all(), table.rare.clone())
            };
            for edge in edges {
                let total = sum.edges.entry(edge.key.clone()).or_default();
                total.opened += edge.counts.opened.get();
                total.closed += edge.counts.closed.get();
                total.failed += edge.counts.failed.get();
                total.sent += edge.counts.sent.get();
                total.received += edge.counts.received.get();
            }
            for (key, count) in rare.refusals {
                *sum.refusals.entry(key).or_default() += count;
            }
            for (key, count) in rare.shadow {
                *sum.shadow.entry(key).or_default() += count;
            }
        }
        sum
    }
}

/// What one worker counts with.
#[derive(Debug, Clone)]
pub struct WorkerTelemetry {
    table: Arc<Mutex<Table>>,
    log: Sender,
}

impl WorkerTelemetry {
    /// A connection is set up: both ends are known and bytes may flow. Says where everything else of it is counted.
    #[must_use]
    pub fn opened(&self, record: &ConnectionRecord) -> Arc<Edge> {
        let edge = lock(&self.table).edge(record, None);
        edge.counts.opened.add(1);
        edge
    }

    /// Bytes of a live connection since the last call, so that long connections show while they live.
    pub fn progress(&self, edge: &Edge, sent: u64, received: u64) {
        edge.counts.sent.add(sent);
        edge.counts.received.add(received);
    }

    /// The end of a connection that was [`opened`](Self::opened). `sent` and `received` are what
    /// [`progress`](Self::progress) has not been told yet; the record carries the totals.
    pub fn closed(&self, edge: &Edge, record: ConnectionRecord, sent: u64, received: u64) {
        edge.counts.closed.add(1);
        self.progress(edge, sent, received);
        // The reason makes the failure an edge of its own.
        if record.reason.is_some() || record.shadow.is_some() {
            lock(&self.table).count_reason(&record);
        }
        self.write(record);
    }

    /// A connection that never came to be.
    pub fn refused(&self, record: ConnectionRecord) {
        lock(&self.table).count_reason(&record);
        self.write(record);
    }

    fn write(&self, record: ConnectionRecord) {
        let lasted = record.opened.elapsed();
        self.log.put(Finished { record, ended: SystemTime::now(), lasted });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters are whole after every statement, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
