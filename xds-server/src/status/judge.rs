//! What is to be said of a policy: is it taken, and for how many workloads is it in force. Pure.

use std::collections::BTreeMap;

use weft_kubernetes::Wanted;
use weft_manifest::objects::{AuthorizationPolicy, Pod, PolicyTarget};
use weft_manifest::{Finding, ObjectKey, Outcome, Revision, Severity};
use weft_model::authz::Mode;
use weft_model::enrolment::SYSTEM_NAMESPACE;

use super::knowledge::Holds;

/// Whether the policy can be used: taken in whole.
pub(super) const ACCEPTED: &str = "Accepted";
/// Whether it is in force for every workload that it is for.
pub(super) const ENFORCED: &str = "Enforced";
/// The reason that goes away by itself when agents connect.
pub(super) const NOT_ACKNOWLEDGED: &str = "NotAcknowledged";
/// Nodes or pods that one message names.
const NAMED: usize = 5;

/// Findings by the object that they are about.
pub(super) struct Findings<'a>(BTreeMap<&'a str, Vec<&'a Finding>>);

impl<'a> Findings<'a> {
    pub(super) fn of(outcome: &'a Outcome) -> Self {
        let mut found: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &outcome.findings {
            found.entry(&finding.object).or_default().push(finding);
        }
        Self(found)
    }

    /// Those of one object and severity, as `field: problem; ...`.
    fn text(&self, object: &str, severity: Severity) -> String {
        let of_object = self.0.get(object).into_iter().flatten().filter(|finding| finding.severity == severity);
        let text = |finding: &&Finding| match finding.field.as_str() {
            "" => finding.problem.clone(),
            field => format!("{field}: {}", finding.problem),
        };
        of_object.map(text).collect::<Vec<_>>().join("; ")
    }
}

/// Both conditions of one policy. `holds` says whether a node holds a state of it.
pub(super) fn judge(
    outcome: &Outcome,
    findings: &Findings<'_>,
    key: &ObjectKey,
    holds: impl Fn(&str, &Revision) -> Holds,
) -> [Wanted; 2] {
    let in_force = outcome.objects.policies.get(&(key.namespace.clone(), key.name.clone()));
    let accepted = accepted(outcome, findings, key, in_force.is_some());
    let enforced = match in_force {
        Some(policy) if accepted.holds => enforced(outcome, policy, holds),
        Some(_) if outcome.kept.contains(key) => no("NotAccepted", "the version before is in force, not this one"),
        _ => no("NotAccepted", "nothing of it is in force"),
    };
    [accepted, enforced]
}

fn accepted(outcome: &Outcome, findings: &Findings<'_>, key: &ObjectKey, in_force: bool) -> Wanted {
    let object = key.to_string();
    let errors = findings.text(&object, Severity::Error);
    let (holds, reason, message) = if !errors.is_empty() && outcome.kept.contains(key) {
        (false, "Refused", format!("{errors}; its version before stays in force"))
    } else if !errors.is_empty() && in_force {
        (false, "NotSupported", errors)
    } else if !errors.is_empty() {
        (false, "Refused", format!("{errors}; nothing of it is in force"))
    } else {
        let warnings = findings.text(&object, Severity::Warning);
        (true, "Accepted", if warnings.is_empty() { "it is taken as it is written".to_owned() } else { warnings })
    };
    Wanted { name: ACCEPTED, holds, reason, message }
}

fn no(reason: &'static str, message: &str) -> Wanted {
    Wanted { name: ENFORCED, holds: false, reason, message: message.to_owned() }
}

/// The workloads of one policy, counted.
#[derive(Debug, Default)]
struct Count<'a> {
    workloads: usize,
    enforced: usize,
    /// By node: how it stands.
    nodes: BTreeMap<&'a str, Option<Holds>>,
    uncaptured: Vec<String>,
    outside: usize,
}

fn enforced(outcome: &Outcome, policy: &AuthorizationPolicy, holds: impl Fn(&str, &Revision) -> Holds) -> Wanted {
    if policy.mode == Mode::Shadow {
        return no("Shadow", "it is evaluated and counted, never enforced");
    }
    let count = count(outcome, policy, holds);
    if count.workloads == 0 {
        let outside = match count.outside {
            0 => String::new(),
            outside => format!("; pods that it selects and that are not in the mesh: {outside}"),
        };
        return no("NoWorkloads", &format!("it is for no pod of the mesh at present{outside}"));
    }
    let nodes = |wanted: Holds| -> Vec<String> {
        let of_state = count.nodes.iter().filter(|(_, holds)| **holds == Some(wanted));
        of_state.map(|(node, _)| (*node).to_owned()).collect()
    };
    let (in_force, refused, behind) = (nodes(Holds::Yes), nodes(Holds::Refused), nodes(Holds::No));
    let mut message = format!(
        "in force for {} of {} workloads, on {} of {} nodes",
        count.enforced,
        count.workloads,
        in_force.len(),
        count.nodes.len()
    );
    let mut wrong = Vec::new();
    for (names, says) in [
        (&refused, "whose agent refuses it (its log says why)"),
        (&behind, "not acknowledged"),
        (&count.uncaptured, "not captured"),
    ] {
        if !names.is_empty() {
            wrong.push(format!("{says}: {}", some(names)));
        }
    }
    if !wrong.is_empty() {
        message = format!("{message}; {}", wrong.join("; "));
    }
    let reason = match (refused.is_empty(), behind.is_empty(), count.uncaptured.is_empty()) {
        (false, ..) => "RefusedByAgent",
        (_, false, _) => NOT_ACKNOWLEDGED,
        (.., false) => "NotCaptured",
        _ => "Enforced",
    };
    Wanted { name: ENFORCED, holds: wrong.is_empty(), reason, message }
}

/// The first few.
fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn count<'a>(
    outcome: &'a Outcome,
    policy: &AuthorizationPolicy,
    holds: impl Fn(&str, &Revision) -> Holds,
) -> Count<'a> {
    let revision = Revision {
        uid: policy.metadata.uid.clone().unwrap_or_default(),
        generation: policy.generation.unwrap_or_default(),
    };
    let mut count = Count::default();
    for pod in pods(outcome, policy).filter(|pod| !pod.is_finished() && !pod.addresses.is_empty()) {
        if !outcome.objects.enrolment(pod).is_enrolled() {
            count.outside += 1;
            continue;
        }
        count.workloads += 1;
        let node = count.nodes.entry(&pod.node).or_insert_with(|| None);
        let holds = *node.get_or_insert_with(|| holds(&pod.node, &revision));
        if pod.captured != Some(true) {
            count.uncaptured.push(format!("{}/{}", pod.metadata.namespace, pod.metadata.name));
        } else if holds == Holds::Yes {
            count.enforced += 1;
        }
    }
    count
}

/// The pods that it is for; the same rule as `translate::policy`.
fn pods<'a>(outcome: &'a Outcome, policy: &AuthorizationPolicy) -> Box<dyn Iterator<Item = &'a Pod> + 'a> {
    let namespace = policy.metadata.namespace.clone();
    let targets = policy.targets.clone();
    let objects = &outcome.objects;
    if targets.is_empty() && namespace == SYSTEM_NAMESPACE {
        return Box::new(objects.pods.values().map(AsRef::as_ref));
    }
    let selects = move |pod: &&Pod| {
        targets.is_empty()
            || targets.iter().any(|target| match target {
                PolicyTarget::Pods(selector) => selector.selects(&pod.metadata.labels),
                PolicyTarget::Service(_) => false,
            })
    };
    let of_namespace = objects.pods.range((namespace.clone(), String::new())..);
    let of_namespace = of_namespace.take_while(move |((of, _), _)| *of == namespace).map(|(_, pod)| pod.as_ref());
    Box::new(of_namespace.filter(selects))
}

#[cfg(test)]
mod tests;
