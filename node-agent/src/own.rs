//! The mesh's view of a pod of this node.

use std::sync::Arc;

use weft_model::Mesh;
use weft_model::Workload;

use crate::handover::PodInfo;
use crate::node_info::NodeInfo;

/// The workload that a captured pod is; `None` while the mesh does not know it, or still describes another life of the
/// same name (a restarted `StatefulSet` pod): other account, other address, maybe other policies.
#[must_use]
pub fn own_workload<'a>(mesh: &'a Mesh, node: &NodeInfo, info: &PodInfo) -> Option<&'a Arc<Workload>> {
    let workload = mesh.workload(&node.workload_uid(info))?;
    let same_account = *workload.service_account == *info.service_account;
    let same_address = workload.addresses.is_empty()
        || info.addresses.is_empty()
        || workload.addresses.iter().any(|address| info.addresses.contains(address));
    (same_account && same_address).then_some(workload)
}
