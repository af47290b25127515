//! The endpoints of one service, in the shape that choosing wants: a list to draw from by index.

use std::sync::Arc;

use crate::workload::{Uid, Workload};

/// Immutable; a change to one workload makes a new set.
#[derive(Debug, Clone, Default)]
pub struct EndpointSet {
    workloads: Vec<Arc<Workload>>,
}

impl EndpointSet {
    /// All endpoints, healthy or not, in no particular order.
    #[must_use]
    pub fn workloads(&self) -> &[Arc<Workload>] {
        &self.workloads
    }

    /// The set with this workload put in or replaced.
    #[must_use]
    pub(super) fn with(&self, workload: &Arc<Workload>) -> Self {
        let mut next = self.without(&workload.uid);
        next.workloads.push(workload.clone());
        next
    }

    /// The set without this workload.
    #[must_use]
    pub(super) fn without(&self, uid: &Uid) -> Self {
        Self { workloads: self.workloads.iter().filter(|workload| workload.uid != *uid).cloned().collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workloads.is_empty()
    }
}
