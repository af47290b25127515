//! The queue between the workers and the log: connections that ended, bounded, and without a wake-up for each.
//!
//! Waking the other thread costs more than everything else that telemetry does for a connection (a write to its event queue
//! and a change of context: 5 to 10 us). So it is woken for the first record, waits [`GATHER`] for more, and earlier only
//! when [`MANY`] are there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::record::ConnectionRecord;

/// Finished connections that wait for the log, per agent. 8,192 at about 350 bytes are 3 MB, and half a second of the most
/// that two workers were seen to do.
pub(super) const CAPACITY: usize = 8_192;
/// So many do not wait until [`GATHER`] is over: an eighth of the queue, and a batch of lines.
pub(super) const MANY: usize = 1_024;
/// How long the first record waits for others: 20 wake-ups a second at most, and a person does not notice.
const GATHER: Duration = Duration::from_millis(50);
/// Room that an empty queue keeps; a burst's room is given back.
const KEPT: usize = 128;

/// A connection that ended. When and how long are the worker's words: the log may be late.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) record: ConnectionRecord,
    pub(super) ended: SystemTime,
    pub(super) lasted: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    finished: Vec<Finished>,
    senders: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers' end. Clones share the queue; it ends with the last one.
#[derive(Debug)]
pub(super) struct Sender(Arc<Queue>);

impl Sender {
    /// Puts one in; never waits. What does not fit is dropped and counted.
    pub(super) fn put(&self, finished: Finished) {
        let count = {
            let mut waiting = self.0.lock();
            if waiting.finished.len() >= CAPACITY {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.finished.push(finished);
            waiting.finished.len()
        };
        if count == 1 || count == MANY {
            self.0.wake.notify_one();
        }
    }

    /// How many lines were lost, here or behind.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let last = {
            let mut waiting = self.0.lock();
            waiting.senders -= 1;
            waiting.senders == 0
        };
        if last {
            self.0.wake.notify_one();
        }
    }
}

/// The log's end.
#[derive(Debug)]
pub struct Lines {
    queue: Arc<Queue>,
    /// Taken out for [`Lines::next`], in order.
    taken: VecDeque<Finished>,
}

/// Where lines are counted that were taken out and then lost.
#[derive(Debug, Clone)]
pub(super) struct Lost(Arc<Queue>);

impl Lost {
    pub(super) fn add(&self, lines: u64) {
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

pub(super) fn queue() -> (Sender, Lines) {
    let queue = Arc::<Queue>::default();
    queue.lock().senders = 1;
    (Sender(queue.clone()), Lines { queue, taken: VecDeque::new() })
}

impl Lines {
    pub(super) fn lost(&self) -> Lost {
        Lost(self.queue.clone())
    }

    /// Waits for connections that ended and puts all of them into `into`, which must be empty; false when all workers
    /// are gone and nothing is left. `into` becomes the queue's next storage, so that nothing is copied.
    pub(super) async fn take(&mut self, into: &mut Vec<Finished>) -> bool {
        if !self.some().await {
            return false;
        }
        let hurry = {
            let waiting = self.queue.lock();
            waiting.senders == 0 || waiting.finished.len() >= MANY
        };
        if !hurry {
            // Over in time or early makes no difference: all that is there is taken.
            let _early = timeout(GATHER, self.queue.wake.notified()).await;
        }
        self.swap(into);
        true
    }

    /// The next connection that ended, for who wants to see them instead of writing lines; `None` when all workers are gone.
    pub async fn next(&mut self) -> Option<ConnectionRecord> {
        if self.taken.is_empty() && !self.some().await {
            return None;
        }
        self.next_now()
    }

    /// As [`Lines::next`], but `None` also when there is none now.
    pub fn next_now(&mut self) -> Option<ConnectionRecord> {
        if self.taken.is_empty() {
            let mut finished = Vec::new();
            self.swap(&mut finished);
            self.taken.extend(finished);
        }
        self.taken.pop_front().map(|finished| finished.record)
    }

    /// Waits for one to be there; false when none will come.
    async fn some(&self) -> bool {
        loop {
            {
                let waiting = self.queue.lock();
                if !waiting.finished.is_empty() {
                    return true;
                }
                if waiting.senders == 0 {
                    return false;
                }
            }
            self.queue.wake.notified().await;
        }
    }

    fn swap(&self, into: &mut Vec<Finished>) {
        debug_assert!(into.is_empty(), "it becomes the queue's storage");
        if into.capacity() > KEPT {
            into.shrink_to(KEPT);
        }
        std::mem::swap(into, &mut self.queue.lock().finished);
    }
}
