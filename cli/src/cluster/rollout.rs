//! Whether a Deployment or DaemonSet is what was asked for: what `kubectl rollout status` looks at. Pure.

use serde_json::Value;

/// `None`: it is. Else what is missing, in words.
#[must_use]
pub fn missing(object: &Value) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    if number(&status["observedGeneration"]) < number(&object["metadata"]["generation"]) {
        return Some("not looked at yet".to_owned());
    }
    let (wanted, updated, ready) = if object["kind"] == "DaemonSet" {
        (
            number(&status["desiredNumberScheduled"]),
            number(&status["updatedNumberScheduled"]),
            number(&status["numberReady"]),
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

    fn daemon_set(wanted: i64, updated: i64, ready: i64) -> Value {
        json!({ "kind": "DaemonSet", "metadata": { "generation": 1 }, "status": {
            "observedGeneration": 1, "desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberReady": ready,
        } })
    }

    #[rstest]
    #[case(deployment(1, 2, 2, 2), Some("not looked at yet"))]
    #[case(deployment(2, 1, 2, 3), Some("1 of 2 started"))]
    #[case(deployment(2, 2, 1, 2), Some("1 of 2 ready"))]
    #[case(deployment(2, 2, 2, 3), Some("1 of the old version still there"))]
    #[case(deployment(2, 2, 2, 2), None)]
    #[case(daemon_set(3, 3, 2), Some("2 of 3 ready"))]
    #[case(daemon_set(3, 3, 3), None)]
    #[case(json!({ "kind": "Deployment", "metadata": { "generation": 1 } }), Some("not looked at yet"))]
    fn what_is_missing(#[case] object: Value, #[case] expected: Option<&str>) {
        assert_eq!(missing(&object).as_deref(), expected);
    }
}
