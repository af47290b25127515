//! What a verdict about one workload is read from, so that whoever has given verdicts can tell which of them a new version
//! of the mesh concerns.

use std::sync::Arc;

use super::policy::Policy;
use crate::mesh::Mesh;
use crate::workload::Workload;

/// The workload and every policy for it, as one version of the mesh has them. Two are equal when nothing that
/// [`super::evaluate`] reads was put again or removed in between: then every verdict is what it was.
#[derive(Debug, Clone)]
pub struct Basis {
    workload: Option<Arc<Workload>>,
    policies: Vec<Option<Arc<Policy>>>,
}

impl Basis {
    /// For the workload; as `last` knows it, should the mesh have dropped it.
    #[must_use]
    pub fn of(mesh: &Mesh, last: &Arc<Workload>) -> Self {
        let workload = mesh.workload(&last.uid).cloned();
        let known = workload.as_ref().unwrap_or(last);
        let for_all = mesh.shared_policies_of(&known.namespace).cloned().map(Some);
        let named = known.policies.iter().map(|key| mesh.shared_policy(key).cloned());
        let policies = for_all.chain(named).collect();
        Self { workload, policies }
    }
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        same(self.workload.as_ref(), other.workload.as_ref())
            && self.policies.len() == other.policies.len()
            && self.policies.iter().zip(&other.policies).all(|(one, other)| same(one.as_ref(), other.as_ref()))
    }
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
