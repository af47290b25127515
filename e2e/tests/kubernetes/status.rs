//! What the cluster is told: conditions and Events of policies and pods, who leads, and what the API server refuses by itself.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use weft_testkit::wait;

use crate::stage::{DEADLINE, Stage, run};
use crate::{alone, among_others, shop};

const LEASE: [&str; 6] = ["-n", "weft-system", "get", "lease", "weft-xds-server", "-o"];

/// For a namespace that needs nothing in it.
const NOTHING: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: nothing}}";

/// The pod that leads.
fn leader() -> Result<String> {
    let holder = run(&[&LEASE[..], &["jsonpath={.spec.holderIdentity}"]].concat(), "")?;
    let pod = holder.rsplit_once('_').map(|(pod, _)| pod.to_owned());
    pod.filter(|pod| !pod.is_empty()).with_context(|| format!("held by '{holder}'"))
}

fn policy(name: &str, spec: &str) -> String {
    format!("apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// `status reason message` of one condition.
fn condition(stage: &Stage, policy: &str, name: &str) -> Result<String> {
    let parts = ["status", "reason", "observedGeneration", "message"];
    let path = parts.map(|part| format!("{{.status.conditions[?(@.type==\"{name}\")].{part}}}")).join(" ");
    stage.kubectl(&["get", "authorizationpolicy", policy, "-o", &format!("jsonpath={path}")])
}

fn becomes(stage: &Stage, policy: &str, name: &str, expected: &str) -> Result<()> {
    wait::eventually(DEADLINE, &format!("{name} of {policy}: {expected}"), || {
        let said = condition(stage, policy, name)?;
        if said.starts_with(expected) { Ok(()) } else { Err(anyhow::anyhow!("{said}")) }
    })
}

fn waited(stage: &Stage, policy: &str, condition: &str) -> Result<()> {
    let resource = format!("authorizationpolicy/{policy}");
    stage.kubectl(&["wait", &format!("--for=condition={condition}"), &resource, "--timeout=60s"]).map(drop)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_policy_says_whether_it_is_taken_and_for_how_many_workloads_it_is_in_force() -> Result<()> {
    let _others = among_others();
    let stage = shop("status")?;
    let spec = "{targetRefs: [{kind: Pod, selector: {matchLabels: {app: web}}}], rules: [{from: [{serviceAccounts: [NAMESPACE/client]}]}]}";
    stage.apply(&policy("web", spec))?;
    waited(&stage, "web", "Accepted")?;
    becomes(&stage, "web", "Enforced", "False NoWorkloads 1")?;
    stage.enroll()?;
    waited(&stage, "web", "Enforced")?;
    becomes(&stage, "web", "Enforced", "True Enforced 1 in force for 2 of 2 workloads")?;
    // Whoever says that it is in force has heard it from the agents: the next call meets the new version.
    stage.apply(&policy("web", &spec.replace("client", "somebody")))?;
    becomes(&stage, "web", "Enforced", "True Enforced 2")?;
    ensure!(stage.call("http://web/")? == "000", "the new version is in force");
    stage.apply(&policy("web", &spec.replace("rules", "mode: Shadow, rules")))?;
    becomes(&stage, "web", "Enforced", "False Shadow 3")?;

    // What the schema lets through and the parser does not: the server says so itself, on the policy and as an Event.
    stage.apply(&policy("later", "{targetRefs: [{kind: Service, name: web}]}"))?;
    becomes(&stage, "later", "Accepted", "False NotSupported 1 spec.targetRefs[0]: ")?;
    becomes(&stage, "later", "Enforced", "False")?;
    wait::eventually(DEADLINE, "an Event on the policy", || {
        let selector = "--field-selector=involvedObject.name=later,reason=NotSupported";
        let said = stage.kubectl(&["get", "events", selector, "-o", "jsonpath={.items[*].message}"])?;
        if said.contains("spec.targetRefs[0]") { Ok(()) } else { Err(anyhow::anyhow!("'{said}'")) }
    })
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_status_that_says_it_all_is_not_written_again() -> Result<()> {
    let _others = among_others();
    let stage = Stage::new("quiet", NOTHING)?;
    stage.apply(&policy("deny", "{}"))?;
    waited(&stage, "deny", "Accepted")?;
    becomes(&stage, "deny", "Enforced", "False NoWorkloads 1")?;
    let version =
        || stage.kubectl(&["get", "authorizationpolicy", "deny", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let before = version()?;
    // Some rounds of the leader's, with other tests that change other things beside.
    wait::pause(std::time::Duration::from_secs(10));
    assert_eq!(version()?, before, "no write without news");
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_replica_takes_over_when_the_leader_is_killed_and_status_goes_on() -> Result<()> {
    let _alone = alone();
    let stage = shop("leader")?;
    stage.enroll()?;
    stage.apply(&policy("web", "{rules: [{}]}"))?;
    waited(&stage, "web", "Enforced")?;
    let since = |name: &str| {
        let path = format!("jsonpath={{.status.conditions[?(@.type==\"{name}\")].lastTransitionTime}}");
        stage.kubectl(&["get", "authorizationpolicy", "web", "-o", &path])
    };
    let (accepted, enforced) = (since("Accepted")?, since("Enforced")?);
    let before = leader()?;
    // No grace: a process that is killed gives nothing back.
    run(&["-n", "weft-system", "delete", "pod", &before, "--grace-period=0", "--force"], "")?;
    wait::eventually(DEADLINE, "another leader", || {
        let now = leader()?;
        if now == before { Err(anyhow::anyhow!("{now}")) } else { Ok(()) }
    })?;
    stage.apply(&policy("later", "{rules: [{}]}"))?;
    waited(&stage, "later", "Enforced")?;
    // And what was true is not taken back meanwhile.
    run(&["-n", "weft-system", "rollout", "status", "deployment/weft-xds-server", "--timeout=90s"], "")?;
    assert_eq!((since("Accepted")?, since("Enforced")?), (accepted, enforced));
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_leader_that_ends_in_order_gives_its_lease_back() -> Result<()> {
    let _alone = alone();
    let before = leader()?;
    let begin = std::time::Instant::now();
    run(&["-n", "weft-system", "delete", "pod", &before, "--wait=false"], "")?;
    wait::eventually(DEADLINE, "another leader", || {
        let now = leader()?;
        if now == before { Err(anyhow::anyhow!("{now}")) } else { Ok(()) }
    })?;
    // The lease runs out after 15 s at the earliest.
    assert!(begin.elapsed() < std::time::Duration::from_secs(12), "{:?}", begin.elapsed());
    run(&["-n", "weft-system", "rollout", "status", "deployment/weft-xds-server", "--timeout=90s"], "").map(drop)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn every_example_is_admitted() -> Result<()> {
    let _others = among_others();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut admitted = 0;
    for file in std::fs::read_dir(folder)? {
        let text = std::fs::read_to_string(file?.path())?;
        for document in text.split("\n---").filter(|document| document.contains("kind: AuthorizationPolicy")) {
            // In namespaces that are there, and nothing of it stays: the examples' own are none of ours.
            let document = document
                .replace("namespace: shop", "namespace: default")
                .replace("namespace: ledger", "namespace: default");
            run(&["create", "--dry-run=server", "-f", "-"], &document).with_context(|| document.clone())?;
            admitted += 1;
        }
    }
    ensure!(admitted >= 7, "{admitted} policies");
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn what_can_never_work_is_refused_by_the_api_server_which_names_the_field() -> Result<()> {
    let _others = among_others();
    let from = |condition: &str| format!("{{rules: [{{from: [{{{condition}}}]}}]}}");
    let target = |target: &str| format!("{{targetRefs: [{{{target}}}]}}");
    let bad = [
        ("weft-strict-mtls-x", "{}".to_owned(), "metadata.name"),
        ("p", "{action: Deny}".to_owned(), "spec.rules"),
        ("p", "{action: Permit}".to_owned(), "spec.action"),
        ("p", "{mode: Off}".to_owned(), "spec.mode"),
        ("p", "{more: 1}".to_owned(), "spec.more"),
        ("p", "{targetRefs: []}".to_owned(), "spec.targetRefs"),
        ("p", target("kind: Pod, name: a"), "spec.targetRefs[0]"),
        ("p", target("kind: Service, selector: {}"), "spec.targetRefs[0]"),
        ("p", target("kind: Job, name: a"), "spec.targetRefs[0].kind"),
        ("p", target("kind: Pod, selector: {matchExpressions: [{key: a, operator: In}]}"), "matchExpressions[0]"),
        (
            "p",
            target("kind: Pod, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}"),
            "matchExpressions[0]",
        ),
        ("p", from(""), "spec.rules[0].from[0]"),
        ("p", from("identities: []"), "spec.rules[0].from[0].identities"),
        ("p", from("identities: [somebody]"), "spec.rules[0].from[0].identities[0]"),
        ("p", from("identities: ['a*b']"), "spec.rules[0].from[0].identities[0]"),
        ("p", from("namespaces: ['a*b']"), "spec.rules[0].from[0].namespaces[0]"),
        ("p", from("notNamespaces: [a/b]"), "spec.rules[0].from[0].notNamespaces[0]"),
        ("p", from("serviceAccounts: [web]"), "spec.rules[0].from[0].serviceAccounts[0]"),
        ("p", from("cidrs: [10.0.0.1/8]"), "spec.rules[0].from[0].cidrs[0]"),
        ("p", from("notCidrs: [10.0.0.0/33]"), "spec.rules[0].from[0].notCidrs[0]"),
        ("p", from("cidrs: ['::ffff:10.0.0.0/104']"), "spec.rules[0].from[0].cidrs[0]"),
        ("p", "{rules: [{to: [{ports: [0]}]}]}".to_owned(), "spec.rules[0].to[0].ports[0]"),
        ("p", "{rules: [{to: [{}]}]}".to_owned(), "spec.rules[0].to[0]"),
        ("p", "{rules: [{to: [{ports: [80], notPaths: [/a]}]}]}".to_owned(), "spec.rules"),
    ];
    for (name, spec, field) in bad {
        let refused = run(&["-n", "default", "create", "--dry-run=server", "-f", "-"], &policy(name, &spec));
        let said = refused.err().with_context(|| format!("{spec} is admitted"))?.to_string();
        ensure!(said.contains(field), "{spec}: {said}");
    }
    let good = ["spiffe://a/ns/b/sa/c", "a/ns/b/sa/c", "*", "spiffe://*", "a/ns/*", "*/sa/c"]
        .map(|text| format!("identities: ['{text}']"));
    let more = [
        "namespaces: [a, 'a*', '*a']",
        "serviceAccounts: [a/b.c]",
        "cidrs: [10.0.0.0/8, 10.1.2.3, '2001:db8::/32', '::1']",
    ];
    for condition in good.iter().map(String::as_str).chain(more) {
        run(&["-n", "default", "create", "--dry-run=server", "-f", "-"], &policy("p", &from(condition)))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn labels_that_mean_nothing_are_refused_and_old_ones_may_stay() -> Result<()> {
    let _others = among_others();
    let stage = Stage::new("labels", NOTHING)?;
    let said = |label: &str| stage.label(label).err().map(|error| error.to_string()).unwrap_or_default();
    for (label, field) in [
        ("weft.dev/mesh=enable", "metadata.labels[weft.dev/mesh]"),
        ("weft.dev/mtls=on", "metadata.labels[weft.dev/mtls]"),
        ("weft.dev/mash=enabled", "metadata.labels"),
    ] {
        ensure!(said(label).contains(field), "{label}: {}", said(label));
    }
    let pod = |metadata: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, {metadata}}}\nspec: {{containers: [{{name: c, image: localhost/none}}]}}\n"
        );
        run(&["-n", &stage.namespace, "create", "--dry-run=server", "-f", "-"], &text)
    };
    let refused = pod("labels: {weft.dev/mesh: 'true'}").err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("metadata.labels[weft.dev/mesh]"), "{refused}");
    ensure!(pod("annotations: {weft.dev/mesh: enabled}").is_err(), "a label among the annotations");
    pod("labels: {weft.dev/mesh: disabled, app: a}")?;
    stage.label("weft.dev/mesh=enabled")?;
    stage.label("weft.dev/mesh-").map(drop)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_pod_that_cannot_be_captured_says_so_in_an_event() -> Result<()> {
    let _others = among_others();
    // A program that holds the tunnels' port.
    let text = include_str!("taken.yaml");
    let stage = Stage::new("taken", text)?;
    stage.rolled_out("taken")?;
    stage.label("weft.dev/mesh=enabled")?;
    let names = stage.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let pods: BTreeSet<&str> = names.split_whitespace().collect();
    wait::eventually(DEADLINE, "an Event on the pod", || {
        let selector = "--field-selector=reason=hbone-port-taken";
        let path = "jsonpath={range .items[*]}{.involvedObject.name} {.message}{\"\\n\"}{end}";
        let said = stage.kubectl(&["get", "events", selector, "-o", path])?;
        let found = said.lines().find(|line| pods.iter().any(|pod| line.starts_with(pod)) && line.contains("15008"));
        found.map(drop).with_context(|| format!("'{said}'"))
    })
}
