//! What is said of policies, as a table.

use rstest::rstest;
use serde_json::{Value, json};
use weft_manifest::{Kind, Live};

use super::*;

/// Namespace `shop` in the mesh: `a` and `b` on node1 and node2, captured; `c` on node2, not captured; `out` opted out.
fn cluster(policy: &Value) -> (Outcome, ObjectKey) {
    let mut live = Live::default();
    live.put(Kind::Namespace, &json!({ "metadata": { "name": "shop", "labels": { "weft.dev/mesh": "enabled" } } }));
    for (name, node, captured, mesh) in [
        ("a", "node1", "True", "enabled"),
        ("b", "node2", "True", "enabled"),
        ("c", "node2", "False", "enabled"),
        ("out", "node1", "False", "disabled"),
    ] {
        let labels = json!({ "app": name, "weft.dev/mesh": mesh });
        live.put(
            Kind::Pod,
            &json!({
                "metadata": { "name": name, "namespace": "shop", "labels": labels, "uid": name },
                "spec": { "nodeName": node, "containers": [] },
                "status": {
                    "phase": "Running", "podIPs": [{ "ip": format!("10.0.0.{}", name.len() * 20 + usize::from(name.as_bytes()[0])) }],
                    "conditions": [{ "type": "weft.dev/captured", "status": captured }],
                },
            }),
        );
    }
    let metadata = json!({ "name": "p", "namespace": "shop", "uid": "u", "generation": 3 });
    let key = live.put(Kind::AuthorizationPolicy, &json!({ "metadata": metadata, "spec": policy })).unwrap();
    (live.outcome(), key)
}

fn selecting(app: &str) -> Value {
    json!({ "targetRefs": [{ "kind": "Pod", "selector": { "matchLabels": { "app": app } } }] })
}

fn said(policy: &Value, behind: &str) -> [Wanted; 2] {
    let (outcome, key) = cluster(policy);
    let holds = |node: &str, revision: &Revision| {
        assert_eq!((revision.uid.as_str(), revision.generation), ("u", 3));
        match node {
            node if node == behind => Holds::No,
            "node1" if behind == "refused" => Holds::Refused,
            _ => Holds::Yes,
        }
    };
    judge(&outcome, &Findings::of(&outcome), &key, holds)
}

#[rstest]
#[case::all(selecting("a"), "", true, "Enforced", "in force for 1 of 1 workloads, on 1 of 1 nodes")]
#[case::not_captured(
    json!({}), "", false, "NotCaptured", "in force for 2 of 3 workloads, on 2 of 2 nodes; not captured: shop/c"
)]
#[case::behind(
    json!({}), "node1", false, "NotAcknowledged",
    "in force for 1 of 3 workloads, on 1 of 2 nodes; not acknowledged: node1; not captured: shop/c"
)]
#[case::refused(
    selecting("a"),
    "refused",
    false,
    "RefusedByAgent",
    "in force for 0 of 1 workloads, on 0 of 1 nodes; whose agent refuses it (its log says why): node1"
)]
#[case::another_node_is_behind(
    selecting("a"),
    "node2",
    true,
    "Enforced",
    "in force for 1 of 1 workloads, on 1 of 1 nodes"
)]
#[case::nobody(selecting("nobody"), "", false, "NoWorkloads", "it is for no pod of the mesh at present")]
#[case::outside(
    selecting("out"),
    "",
    false,
    "NoWorkloads",
    "it is for no pod of the mesh at present; pods that it selects and that are not in the mesh: 1"
)]
#[case::shadow(json!({ "mode": "Shadow" }), "", false, "Shadow", "it is evaluated and counted, never enforced")]
fn in_force(
    #[case] policy: Value,
    #[case] behind: &str,
    #[case] holds: bool,
    #[case] reason: &str,
    #[case] message: &str,
) {
    let [accepted, enforced] = said(&policy, behind);
    assert_eq!((accepted.holds, accepted.reason), (true, "Accepted"));
    assert_eq!((enforced.holds, enforced.reason, enforced.message.as_str()), (holds, reason, message));
}

#[rstest]
#[case::refused(json!({ "action": "Deny" }), "Refused", "spec.rules: a Deny without rules")]
#[case::no_waypoints(
    json!({ "targetRefs": [{ "kind": "Service", "name": "web" }] }), "NotSupported", "spec.targetRefs[0]: is not enforced"
)]
fn not_accepted(#[case] policy: Value, #[case] reason: &str, #[case] message: &str) {
    let [accepted, enforced] = said(&policy, "");
    assert_eq!((accepted.holds, accepted.reason), (false, reason));
    assert!(accepted.message.starts_with(message), "{}", accepted.message);
    assert_eq!((enforced.holds, enforced.reason), (false, "NotAccepted"));
}

#[test]
fn a_version_that_is_refused_leaves_the_one_before_in_force_and_says_so() {
    let mut live = Live::default();
    let put = |live: &mut Live, generation: u64, spec: Value| {
        let metadata = json!({ "name": "p", "namespace": "shop", "uid": "u", "generation": generation });
        live.put(Kind::AuthorizationPolicy, &json!({ "metadata": metadata, "spec": spec })).unwrap()
    };
    put(&mut live, 1, json!({}));
    let key = put(&mut live, 2, json!({ "action": "Deny" }));
    let outcome = live.outcome();
    let [accepted, enforced] = judge(&outcome, &Findings::of(&outcome), &key, |_, _| Holds::Yes);
    assert!(accepted.message.ends_with("its version before stays in force"), "{}", accepted.message);
    assert!(!enforced.holds && enforced.message.contains("the version before"), "{}", enforced.message);
}

#[test]
fn a_message_names_a_few_and_counts_the_rest() {
    let names: Vec<String> = (0..7).map(|number| format!("n{number}")).collect();
    assert_eq!(some(&names), "n0, n1, n2, n3, n4 and 2 more");
}
