//! What a program still waits for before it may be used: every part that must come up first holds a [`Guard`] and drops it
//! when it is done. The admin page `/healthz/ready` answers 200 when nothing is pending and names what is otherwise.
//!
//! It works in both directions: a program that drains takes a new guard (`"draining"`) and so is taken out of service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The list of what is pending. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waits: Mutex<Waits>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Waits {
    next: u64,
    /// Oldest first.
    pending: BTreeMap<u64, String>,
}

impl Readiness {
    /// Nothing pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the guard is dropped. `what` is shown to people: say what must happen, as in `"xds: first answer"`.
    pub fn wait_for(&self, what: impl Into<String>) -> Guard {
        let id = {
            let mut waits = self.lock();
            waits.next += 1;
            let id = waits.next;
            waits.pending.insert(id, what.into());
            id
        };
        self.inner.changes.send_replace(());
        Guard { readiness: self.clone(), id }
    }

    /// What is pending, oldest first; empty when ready.
    pub fn pending(&self) -> Vec<String> {
        self.lock().pending.values().cloned().collect()
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.lock().pending.is_empty()
    }

    /// Completes when nothing is pending.
    pub async fn ready(&self) {
        let mut changes = self.inner.changes.subscribe();
        while !self.is_ready() {
            // The sender lives in `self`, so this cannot fail; if it could, looking again would still be right.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        // Nothing under the lock can panic half-way, so a poisoned list is still right.
        self.inner.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that is waited for; dropping it says "done".
#[derive(Debug)]
#[must_use = "a guard that is dropped at once waits for nothing"]
pub struct Guard {
    readiness: Readiness,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.readiness.lock().pending.remove(&self.id);
        self.readiness.inner.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_guard_is_gone() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let state = readiness.wait_for("xds: first answer");
        let certificates = readiness.wait_for("certificates of 3 pods");
        let twin = readiness.wait_for("xds: first answer");
        assert_eq!(readiness.pending(), ["xds: first answer", "certificates of 3 pods", "xds: first answer"]);
        drop(state);
        assert_eq!(readiness.pending(), ["certificates of 3 pods", "xds: first answer"]);
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        drop(certificates);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(twin);
        waiter.await.unwrap();
        let _draining = readiness.wait_for("draining");
        assert_eq!(readiness.pending(), ["draining"]);
    }
}
