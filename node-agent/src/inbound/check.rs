//! Asks `admit` with one version of the mesh, and enters the outcome where the re-check and telemetry find it.

use std::sync::Arc;

use weft_model::{Mesh, Workload};

use super::admit::{Admission, Denied};
use crate::connections::Live;
use crate::failure::Failure;
use crate::shard::Shard;

/// Checks a connection to `workload`. It is re-checked from then on until it ends.
///
/// # Errors
/// The denial, its policy entered in the record.
pub fn check(
    shard: &Shard,
    live: &Live,
    workload: &Arc<Workload>,
    admit: impl FnOnce(&Mesh, &Workload) -> Result<Admission, Denied>,
) -> Result<Admission, Failure> {
    let (workload, outcome) = shard.mesh(|mesh| {
        // The workload as this version has it; as it was known before, should it just have left.
        let workload = mesh.workload(&workload.uid).unwrap_or(workload);
        (workload.clone(), admit(mesh, workload))
    });
    match outcome {
        Ok(admission) => {
            live.note_verdict(admission.permit.policy().cloned(), admission.shadow.clone());
            live.checked(&workload, admission.connection.clone());
            Ok(admission)
        }
        Err(denied) => {
            live.note_verdict(denied.policy, None);
            Err(denied.reason.into())
        }
    }
}
