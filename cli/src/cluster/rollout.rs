//! Whether a Deployment or DaemonSet is what was asked for: what `kubectl rollout status` looks at. Pure.

use serde_json::Value;

/// `None`: it is. Else what is missing, in words. `pods`: those of a DaemonSet. Its own status counts the oldest pod of each node, also
/// one that has been told to end and finishes what it has, so the pods themselves say more; and it says more than their labels, where a
/// template was changed and changed back: then pods of an older generation are as they shall be.
#[must_use]
pub fn missing(object: &Value, pods: &[Value]) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    if number(&status["observedGeneration"]) < number(&object["metadata"]["generation"]) {
        return Some("not looked at yet".to_owned());
    }
    let (wanted, updated, ready) = if object["kind"] == "DaemonSet" {
        let new: Vec<_> = pods.iter().filter(|pod| is_new(object, pod)).collect();
        let ready = count(new.iter().filter(|pod| is_ready(pod)).count());
        (
            number(&status["desiredNumberScheduled"]),
            count(new.len()).max(number(&status["updatedNumberScheduled"])),
            ready.max(number(&status["updatedNumberScheduled"]).min(number(&status["numberAvailable"]))),
        )
    } else {
        (
            spec["replicas"].as_i64().unwrap_or(1),
            number(&status["updatedReplicas"]),
            number(&status["availableReplicas"]),
        )
    };
    let old = number(&status["replicas"]) - updated;
    match () {
        () if updated < wanted => Some(format!("{updated} of {wanted} started")),
        () if ready < wanted => Some(format!("{ready} of {wanted} ready")),
        () if old > 0 && object["kind"] != "DaemonSet" => Some(format!("{old} of the old version still there")),
        () => None,
    }
}

/// Of the DaemonSet's present template, and to stay.
fn is_new(set: &Value, pod: &Value) -> bool {
    let generation = &set["metadata"]["annotations"]["deprecated.daemonset.template.generation"];
    pod["metadata"]["deletionTimestamp"].is_null()
        && generation.is_string()
        && pod["metadata"]["labels"]["pod-template-generation"] == *generation
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::missing;

    fn deployment(observed: i64, updated: i64, available: i64, all: i64) -> Value {
        json!({ "kind": "Deployment", "metadata": { "generation": 2 }, "spec": { "replicas": 2 }, "status": {
            "observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available, "replicas": all,
        } })
    }

    fn daemon_set(observed: i64) -> Value {
        let annotations = json!({ "deprecated.daemonset.template.generation": "2" });
        json!({ "kind": "DaemonSet", "metadata": { "generation": 2, "annotations": annotations }, "status": {
            "observedGeneration": observed, "desiredNumberScheduled": 2, "updatedNumberScheduled": 0, "numberReady": 2,
        } })
    }

    fn pod(generation: &str, ready: &str, ends: bool) -> Value {
        let conditions = json!([{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": ready }]);
        let end = ends.then_some("2026-11-23T03:00:00Z");
        json!({ "metadata": { "labels": { "pod-template-generation": generation }, "deletionTimestamp": end },
            "status": { "conditions": conditions } })
    }

    #[rstest]
    #[case(deployment(1, 2, 2, 2), Some("not looked at yet"))]
    #[case(deployment(2, 1, 2, 3), Some("1 of 2 started"))]
    #[case(deployment(2, 2, 1, 2), Some("1 of 2 ready"))]
    #[case(deployment(2, 2, 2, 3), Some("1 of the old version still there"))]
    #[case(deployment(2, 2, 2, 2), None)]
    #[case(json!({ "kind": "Deployment", "metadata": { "generation": 1 } }), Some("not looked at yet"))]
    fn what_is_missing(#[case] object: Value, #[case] expected: Option<&str>) {
        assert_eq!(missing(&object, &[]).as_deref(), expected);
    }

    #[rstest]
    #[case(2, 2, None)]
    #[case(1, 2, Some("1 of 2 started"))]
    #[case(2, 1, Some("1 of 2 ready"))]
    fn pods_of_an_older_generation_whose_template_is_the_present_one_again_are_enough(
        #[case] updated: i64,
        #[case] available: i64,
        #[case] expected: Option<&str>,
    ) {
        let mut set = daemon_set(2);
        set["status"]["updatedNumberScheduled"] = updated.into();
        set["status"]["numberAvailable"] = available.into();
        assert_eq!(missing(&set, &[pod("1", "True", false), pod("1", "True", false)]).as_deref(), expected);
    }

    #[rstest]
    #[case(1, vec![], Some("not looked at yet"))]
    #[case(2, vec![pod("1", "True", false), pod("2", "True", false)], Some("1 of 2 started"))]
    #[case(2, vec![pod("2", "False", false), pod("2", "True", false)], Some("1 of 2 ready"))]
    #[case(2, vec![pod("2", "True", false), pod("2", "True", true)], Some("1 of 2 started"))]
    #[case(2, vec![pod("2", "True", false), pod("2", "True", false), pod("1", "True", true)], None)]
    fn what_is_missing_of_a_daemon_set(
        #[case] observed: i64,
        #[case] pods: Vec<Value>,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(missing(&daemon_set(observed), &pods).as_deref(), expected);
    }
}
