//! The command.

use std::process::ExitCode;
use std::time::Duration;

use weft_kubernetes::Cluster;

use super::finding::{Finding, Level, is_good};
use super::gather::gather;
use super::seen::Seen;
use super::{certificates, node, plane, pods, pre, print};
use crate::cluster::connect::with;
use crate::cluster::options::CheckOptions;
use crate::format::Format;
use crate::output;

/// What is only under way is over by then: a pod joins within a second, and is not asked about in one moment by everybody.
const AGAIN: Duration = Duration::from_secs(3);

/// Looks.
///
/// # Errors
/// The API server cannot be asked.
pub fn run(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let findings = with(&options.cluster, |cluster| async move {
        if options.pre { pre::look(&cluster).await } else { installed(&cluster).await }
    })?;
    match (options.output, options.pre) {
        (Format::Json, _) => output::json(&findings)?,
        (Format::Table, true) => print::table(&findings)?,
        (Format::Table, false) => print::grouped(&findings)?,
    }
    Ok(if is_good(&findings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong and still is a moment later.
async fn installed(cluster: &Cluster) -> anyhow::Result<Vec<Finding>> {
    let findings = of(&gather(cluster).await?);
    if findings.iter().all(|finding| finding.level < Level::Warning) {
        return Ok(findings);
    }
    tokio::time::sleep(AGAIN).await;
    Ok(of(&gather(cluster).await?))
}

/// All findings, in the order in which one thing needs another.
fn of(seen: &Seen) -> Vec<Finding> {
    if !plane::is_installed(seen) {
        return plane::not_installed(seen);
    }
    let nodes = seen.nodes.iter().flat_map(|one| node::findings(one, seen));
    let mut findings = plane::findings(seen);
    findings.extend(certificates::findings(seen));
    findings.extend(nodes);
    findings.extend(pods::findings(seen));
    findings
}
