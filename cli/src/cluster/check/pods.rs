//! Pods that are not what is wanted, each by name. Pure.

use weft_model::view::PodRow;

use super::finding::Finding;
use super::seen::{Agent, Seen};
use crate::cluster::pods::{Membership, Row};
use crate::programs::choose::NAMESPACE;

/// What is said of them.
#[must_use]
pub fn findings(seen: &Seen) -> Vec<Finding> {
    seen.pods.iter().filter_map(|row| finding(row, seen)).collect()
}

fn finding(row: &Row, seen: &Seen) -> Option<Finding> {
    let place = format!("pod {}/{}", row.namespace, row.name);
    let describe = format!("kubectl -n {} describe pod {}", row.namespace, row.name);
    let agent = seen.nodes.iter().find(|node| node.name == row.node).and_then(|node| node.agent.as_ref());
    let known = agent.and_then(|agent| word(agent, row));
    match (row.mesh, agent, known) {
        (Membership::Waiting, None, _) if row.node.is_empty() => {
            Some(Finding::warning(&place, "selected, and on no node yet", describe))
        }
        (Membership::Waiting, None, _) => Some(Finding::error(
            &place,
            format!("node {}: selected but not captured; no agent runs there", row.node),
            "see its node above",
        )),
        (Membership::Waiting, Some(Agent { pods: Ok(_), .. }), None) => Some(Finding::warning(
            &place,
            format!(
                "node {}: selected, and not known to its agent yet: new pods start when they are captured",
                row.node
            ),
            describe,
        )),
        (Membership::Waiting, Some(agent), known) => {
            // The agent's own words begin with "selected but not captured".
            let says = match known {
                None => "selected but not captured; its agent could not be asked why",
                Some(known) => known.note.as_deref().unwrap_or("selected but not captured; its agent does not say why"),
            };
            let next = format!("{describe}; kubectl -n {NAMESPACE} logs {} -c capture --tail=20", agent.program.pod);
            Some(Finding::error(&place, format!("node {}: {says}", row.node), next))
        }
        (Membership::Captured, Some(agent), Some(PodRow { captured_here: Some(false), .. })) => Some(Finding::warning(
            &place,
            format!("node {}: its condition says captured, and the agent does not serve it", row.node),
            format!(
                "look again: weft check; then kubectl -n {NAMESPACE} logs {} -c capture --tail=20",
                agent.program.pod
            ),
        )),
        (Membership::Leaving, ..) => Some(Finding::note(
            &place,
            "not selected any more, and still captured: connections from before end in their own time",
        )),
        _ => None,
    }
}

fn word<'a>(agent: &'a Agent, row: &Row) -> Option<&'a PodRow> {
    let rows = agent.pods.as_ref().ok()?;
    rows.iter().find(|known| (&known.namespace, &known.name) == (&row.namespace, &row.name))
}
