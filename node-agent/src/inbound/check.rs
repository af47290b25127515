//! Asks `admit` with one version of the mesh, and enters the outcome where the re-check and telemetry find it.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use weft_model::{Mesh, Reason, Workload};

use super::admit::{Admission, Denied};
use crate::worker::connections::Live;
use crate::worker::failure::Failure;
use crate::worker::shard::Shard;

/// Checks a connection to `workload`, and waits for a policy that it names and that is still on its way. The connection is
/// re-checked from then on until it ends.
///
/// # Errors
/// The denial, its policy entered in the record.
pub async fn check(
    shard: &Shard,
    live: &Live,
    workload: &Arc<Workload>,
    admit: impl Fn(&Mesh, &Workload) -> Result<Admission, Denied>,
) -> Result<Admission, Failure> {
    let checked = check_now(shard, live, workload, &admit);
    if !is_unknown(&checked) {
        return checked;
    }
    let deadline = Instant::now() + shard.environment.settings.policy_wait;
    let mut mesh = shard.environment.mesh.clone();
    loop {
        let checked = check_now(shard, live, workload, &admit);
        if !is_unknown(&checked) || !matches!(timeout_at(deadline, mesh.changed()).await, Ok(Ok(()))) {
            return checked;
        }
    }
}

fn is_unknown(checked: &Result<Admission, Failure>) -> bool {
    checked.as_ref().is_err_and(|failure| failure.reason == Reason::PolicyUnknown)
}

fn check_now(
    shard: &Shard,
    live: &Live,
    workload: &Arc<Workload>,
    admit: impl Fn(&Mesh, &Workload) -> Result<Admission, Denied>,
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
