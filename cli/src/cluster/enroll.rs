//! `weft enroll` and `weft unenroll`: the label of a namespace, and the wait until it is so for every pod.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use weft_kubernetes::Cluster;
use weft_model::enrolment::MESH_LABEL;

use super::connect::with;
use super::options::EnrollOptions;
use super::pods::{Membership, Row, rows};
use crate::progress::{Done, Progress};

const LOOK: Duration = Duration::from_millis(250);

/// Takes a namespace in, or out.
///
/// # Errors
/// There is no such namespace, or it is not so in time: says which pods.
pub fn run(options: &EnrollOptions, into: bool) -> anyhow::Result<ExitCode> {
    let progress = Progress::begin(options.output);
    progress.end(with(&options.cluster, |cluster| async move {
        cluster.label_namespace(&options.namespace, MESH_LABEL, into.then_some("enabled")).await?;
        let word = if into { "labelled weft.dev/mesh=enabled" } else { "not labelled any more" };
        progress.step("labelled", &options.namespace, &format!("namespace {}: {word}", options.namespace))?;
        let mut message = String::new();
        if options.wait {
            let count = settled(&cluster, &options.namespace, into, progress.begun() + options.timeout).await?;
            let word = if into { "in the mesh" } else { "out of it" };
            message = format!("{count} pods {word} after {:.1} s", progress.begun().elapsed().as_secs_f32());
        }
        Ok(Done { outcome: if into { "enrolled" } else { "unenrolled" }, message })
    }))
}

/// Waits until no pod of a namespace is on the wrong side; gives how many are on the right one.
pub(super) async fn settled(cluster: &Cluster, namespace: &str, into: bool, end: Instant) -> anyhow::Result<usize> {
    loop {
        let rows: Vec<Row> = rows(cluster).await?.into_iter().filter(|row| row.namespace == namespace).collect();
        let wrong = |row: &&Row| match row.mesh {
            Membership::Waiting => into,
            Membership::Captured | Membership::Leaving => !into,
            Membership::Outside | Membership::Ended => false,
        };
        let left: Vec<&str> = rows.iter().filter(wrong).map(|row| &*row.name).collect();
        if left.is_empty() {
            return Ok(rows.iter().filter(|row| (row.mesh == Membership::Captured) == into).count());
        }
        if Instant::now() > end {
            bail!("still not so: {}; `weft check` says more", left.join(", "));
        }
        tokio::time::sleep(LOOK).await;
    }
}
