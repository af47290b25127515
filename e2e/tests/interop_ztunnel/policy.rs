//! Policy: ours enforced by ztunnel, a refusal of either side understood by the other, strict mode, live streams.

use weft_testkit::traffic::{Behaviour, Outcome, Server, connect, echo, outcome};
use weft_testkit::wait;

use crate::stage::{EFFECT, Stage, anywhere};
use crate::stage_or_skip;

/// Nobody who runs as `client` may reach pods of app `server`.
fn deny(client: &str, server: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: no-{client}, namespace: shop}}\nspec:\n  \
         targetRefs:\n  - {{group: \"\", kind: Pod, selector: {{matchLabels: {{app: {server}}}}}}}\n  action: Deny\n  rules:\n  \
         - from:\n    - serviceAccounts: [\"shop/{client}\"]\n"
    )
}

/// Nobody who runs as `client` may reach any pod of the namespace.
fn everywhere(client: &str) -> String {
    let text = deny(client, "any").replace("name: no-", "name: nowhere-");
    text.lines()
        .filter(|line| !line.contains("targetRefs") && !line.contains("kind: Pod"))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn our_policy_is_enforced_by_ztunnel_and_its_refusal_understood() {
    let stage = stage_or_skip!("our_policy_is_enforced_by_ztunnel_and_its_refusal_understood");
    let _server = Server::start(&stage.theirs.netns, anywhere(), Behaviour::Echo).unwrap();
    let to = Stage::app(&stage.theirs, false);
    let live = connect(&stage.ours.netns, to, EFFECT).unwrap();
    echo(&live, b"permitted").unwrap();
    stage.cluster.directory().apply_yaml("no-web", &deny("web", "cart")).unwrap();
    wait::until(EFFECT, "the refusal", || outcome(&stage.ours.netns, to, EFFECT) == Outcome::Reset).unwrap();
    let theirs = stage.wait_their_log(&["direction=\"inbound\"", "policy rejection"]).unwrap();
    assert!(theirs.contains("shop/no-web"), "{theirs}");
    stage.wait_our_log(&["verdict=refused", "reason=peer-refused", "direction=outbound", "401"]).unwrap();
    // ztunnel judges a live stream by the list of policies that its workload had when it began: one that selects the
    // workload anew ends nothing, one for the whole namespace does.
    echo(&live, b"still permitted").unwrap();
    stage.cluster.directory().apply_yaml("no-web-at-all", &everywhere("web")).unwrap();
    wait::until(EFFECT, "the end of the live stream", || echo(&live, b"still?").is_err()).unwrap();
    stage.cluster.directory().delete("no-web-at-all").unwrap();
    stage.cluster.directory().delete("no-web").unwrap();
    wait::until(EFFECT, "an answer", || matches!(outcome(&stage.ours.netns, to, EFFECT), Outcome::Answered(_)))
        .unwrap();
}

#[test]
fn our_refusal_is_understood_by_ztunnel() {
    let stage = stage_or_skip!("our_refusal_is_understood_by_ztunnel");
    let _server = Server::start(&stage.ours.netns, anywhere(), Behaviour::Echo).unwrap();
    let to = Stage::app(&stage.ours, false);
    let live = connect(&stage.theirs.netns, to, EFFECT).unwrap();
    echo(&live, b"permitted").unwrap();
    stage.cluster.directory().apply_yaml("no-cart", &deny("cart", "web")).unwrap();
    let refused = |found| matches!(found, Outcome::Reset | Outcome::Closed);
    // The first of them may still be a connection that the policy cut.
    for _ in 0..3 {
        wait::until(EFFECT, "the refusal", || refused(outcome(&stage.theirs.netns, to, EFFECT))).unwrap();
    }
    stage.wait_our_log(&["verdict=refused", "reason=policy-denied", "direction=inbound", "shop/no-cart"]).unwrap();
    stage.wait_their_log(&["direction=\"outbound\"", "401"]).unwrap();
    wait::until(EFFECT, "the end of the live stream", || echo(&live, b"still?").is_err()).unwrap();
    // No listener is a refusal too: 503, and an error at the client.
    stage.cluster.directory().delete("no-cart").unwrap();
    wait::until(EFFECT, "an answer", || matches!(outcome(&stage.theirs.netns, to, EFFECT), Outcome::Answered(_)))
        .unwrap();
    let nobody = (stage.ours.address(false), 8081).into();
    assert!(refused(outcome(&stage.theirs.netns, nobody, EFFECT)));
    stage.wait_their_log(&["direction=\"outbound\"", "503"]).unwrap();
    let nobody = (stage.theirs.address(false), 8081).into();
    assert_eq!(outcome(&stage.ours.netns, nobody, EFFECT), Outcome::Reset);
    stage.wait_our_log(&["verdict=refused", "reason=peer-refused", "503"]).unwrap();
}

#[test]
fn strict_mode_is_enforced_by_ztunnel() {
    let mut stage = stage_or_skip!("strict_mode_is_enforced_by_ztunnel");
    stage.cluster.namespace("outside", &[]).unwrap();
    let stranger = stage.cluster.pod(weft_testkit::mesh::PodPlan::new("outside", "stranger", "stranger-1", 1)).unwrap();
    let _server = Server::start(&stage.theirs.netns, anywhere(), Behaviour::Echo).unwrap();
    let to = Stage::app(&stage.theirs, false);
    assert_eq!(outcome(&stranger.netns, to, EFFECT), Outcome::Answered("?".into()), "permissive: plaintext is let in");
    stage.cluster.set_namespace_label("shop", "weft.dev/mtls", Some("strict")).unwrap();
    let refused = |found| matches!(found, Outcome::Reset | Outcome::Closed);
    wait::until(EFFECT, "the refusal", || refused(outcome(&stranger.netns, to, EFFECT))).unwrap();
    stage.wait_their_log(&["direction=\"inbound\"", "policy rejection"]).unwrap();
    assert_eq!(outcome(&stage.ours.netns, to, EFFECT), Outcome::Answered("?".into()), "the mesh goes on");
}
