//! The counters of one worker, and the sum over all of them.
//!
//! A worker locks only its own table; the other party is the scrape, some microseconds every few seconds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use weft_model::{PolicyKey, Reason};

use super::edge::EdgeKey;
use super::record::{ConnectionRecord, Direction};

/// Edges that one worker counts apart. A node of 250 pods, each with 20 peers, makes 5,000; a table full of 16,384 edges
/// is about 8 MB. What comes beyond is counted on one edge without names, so that totals stay right.
const EDGE_LIMIT: usize = 16_384;

/// Finished connections that wait for the log writer, per agent. At 100 bytes a line that is 1 s of 8,000 connections/s.
const LOG_QUEUE: usize = 8_192;

/// What one edge has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EdgeCounts {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) failed: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) edges: HashMap<EdgeKey, EdgeCounts>,
    pub(super) refusals: HashMap<(Direction, Reason), u64>,
    pub(super) shadow: HashMap<(PolicyKey, Reason), u64>,
}

impl Table {
    fn edge(&mut self, key: EdgeKey) -> &mut EdgeCounts {
        let full = self.edges.len() >= EDGE_LIMIT && !self.edges.contains_key(&key);
        let key = if full { EdgeKey::overflow(key.direction) } else { key };
        self.edges.entry(key).or_default()
    }
}

/// A connection that ended, for the log. When and how long are the worker's words: the writer may be late.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) record: ConnectionRecord,
    pub(super) ended: SystemTime,
    pub(super) lasted: Duration,
}

/// What the log writer is given: the queue, and where it counts the lines that it could not write.
#[derive(Debug)]
pub struct Lines {
    pub(super) finished: mpsc::Receiver<Finished>,
    pub(super) dropped: Arc<AtomicU64>,
}

impl Lines {
    /// The next connection that ended, for who wants to see them instead of writing lines; `None` when all workers are gone.
    pub async fn next(&mut self) -> Option<ConnectionRecord> {
        self.finished.recv().await.map(|finished| finished.record)
    }

    /// As [`Lines::next`], but `None` also when there is none now.
    pub fn next_now(&mut self) -> Option<ConnectionRecord> {
        self.finished.try_recv().ok().map(|finished| finished.record)
    }
}

/// The telemetry of the whole agent: makes the workers' parts and sums them.
#[derive(Debug, Clone)]
pub struct Telemetry {
    tables: Arc<Mutex<Vec<Arc<Mutex<Table>>>>>,
    log: mpsc::Sender<Finished>,
    pub(super) dropped: Arc<AtomicU64>,
}

impl Telemetry {
    /// The telemetry, and the queue for the log writer.
    #[must_use]
    pub fn new() -> (Self, Lines) {
        let (log, finished) = mpsc::channel(LOG_QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        (Self { tables: Arc::default(), log, dropped: dropped.clone() }, Lines { finished, dropped })
    }

    /// The part of one more worker.
    #[must_use]
    pub fn worker(&self) -> WorkerTelemetry {
        let table = Arc::default();
        lock(&self.tables).push(Arc::clone(&table));
        WorkerTelemetry { table, log: self.log.clone(), dropped: self.dropped.clone() }
    }

    /// The sum over all workers.
    pub(super) fn total(&self) -> Table {
        let mut sum = Table::default();
        for table in lock(&self.tables).iter() {
            let table = lock(table);
            for (key, counts) in &table.edges {
                let total = sum.edges.entry(key.clone()).or_default();
                total.opened += counts.opened;
                total.closed += counts.closed;
                total.failed += counts.failed;
                total.sent += counts.sent;
                total.received += counts.received;
            }
            for (key, count) in &table.refusals {
                *sum.refusals.entry(*key).or_default() += count;
            }
            for (key, count) in &table.shadow {
                *sum.shadow.entry(key.clone()).or_default() += count;
            }
        }
        sum
    }
}

/// What one worker counts with.
#[derive(Debug, Clone)]
pub struct WorkerTelemetry {
    table: Arc<Mutex<Table>>,
    log: mpsc::Sender<Finished>,
    dropped: Arc<AtomicU64>,
}

impl WorkerTelemetry {
    /// A connection is set up: both ends are known and bytes may flow.
    pub fn opened(&self, record: &ConnectionRecord) {
        lock(&self.table).edge(EdgeKey::of(record)).opened += 1;
    }

    /// Bytes of a live connection since the last call, so that long connections show while they live. The record's
    /// totals are the caller's; only the differences are counted here.
    pub fn progress(&self, record: &ConnectionRecord, sent: u64, received: u64) {
        if sent == 0 && received == 0 {
            return;
        }
        let mut table = lock(&self.table);
        let edge = table.edge(EdgeKey::of(record));
        edge.sent += sent;
        edge.received += received;
    }

    /// The end of a connection that was [`opened`](Self::opened). `sent` and `received` are what
    /// [`progress`](Self::progress) has not been told yet; the record carries the totals.
    pub fn closed(&self, record: ConnectionRecord, sent: u64, received: u64) {
        {
            let mut table = lock(&self.table);
            let reason = record.reason;
            // Counted on the edge that it was opened on; the reason makes the failure an edge of its own.
            let edge = table.edge(EdgeKey { reason: None, ..EdgeKey::of(&record) });
            edge.closed += 1;
            edge.sent += sent;
            edge.received += received;
            count_reason(&mut table, &record, reason);
        }
        self.write(record);
    }

    /// A connection that never came to be.
    pub fn refused(&self, record: ConnectionRecord) {
        {
            let mut table = lock(&self.table);
            count_reason(&mut table, &record, record.reason);
        }
        self.write(record);
    }

    fn write(&self, record: ConnectionRecord) {
        let lasted = record.opened.elapsed();
        if self.log.try_send(Finished { record, ended: SystemTime::now(), lasted }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn count_reason(table: &mut Table, record: &ConnectionRecord, reason: Option<Reason>) {
    if let Some(shadow) = &record.shadow {
        *table.shadow.entry((shadow.policy.clone(), shadow.reason)).or_default() += 1;
    }
    if let Some(reason) = reason {
        table.edge(EdgeKey::of(record)).failed += 1;
        *table.refusals.entry((record.direction, reason)).or_default() += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters are whole after every statement, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
