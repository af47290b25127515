//! Faults that only show when all objects are seen together.

use rstest::rstest;

use crate::files::Files;
use crate::finding::Finding;
use crate::store::{Outcome, Store};

fn apply(yaml: &str) -> Outcome {
    let contents = [("x.yaml".into(), Ok(yaml.as_bytes().into()))].into();
    Store::default().apply(&Files { contents, ..Files::default() })
}

fn object(kind: &str, metadata: &str, rest: &str) -> String {
    let version = match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "AuthorizationPolicy" => "weft.dev/v1alpha1",
        _ => "v1",
    };
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\n{rest}\n")
}

/// `severity object field`, without the words.
fn short(finding: &Finding) -> String {
    format!("{} {} {}", finding.severity, finding.object, finding.field)
}

#[rstest]
#[case::never_captured(
    &[object("Namespace", "name: kube-system, labels: {weft.dev/mesh: enabled}", "")],
    &["warning Namespace kube-system metadata.labels.weft.dev/mesh"]
)]
#[case::opted_out_system(&[object("Namespace", "name: kube-system, labels: {weft.dev/mesh: disabled}", "")], &[])]
#[case::host_network(
    &[object("Pod", "name: p, labels: {weft.dev/mesh: enabled}", "spec: {hostNetwork: true}")],
    &["warning Pod default/p metadata.labels.weft.dev/mesh"]
)]
#[case::no_such_port_name(
    &[
        object("Pod", "name: p, labels: {a: b}", "spec: {containers: [{name: c, ports: [{name: http, containerPort: 1}]}]}"),
        object("Service", "name: s", "spec: {selector: {a: b}, ports: [{name: x, port: 1, targetPort: http}, {name: y, port: 2, targetPort: htpp}]}"),
    ],
    &["warning Service default/s spec.ports[1].targetPort"]
)]
#[case::no_pod_yet(&[object("Service", "name: s", "spec: {selector: {a: b}, ports: [{port: 2, targetPort: http}]}")], &[])]
#[case::orphaned_slices(
    &[
        object("EndpointSlice", "name: s", "addressType: IPv4"),
        object("EndpointSlice", "name: t, labels: {kubernetes.io/service-name: u}", "addressType: IPv4"),
    ],
    &["note EndpointSlice default/s metadata.labels", "note EndpointSlice default/t metadata.labels"]
)]
#[case::unknown_pod(
    &[
        object("Service", "name: u", ""),
        object("EndpointSlice", "name: t, labels: {kubernetes.io/service-name: u}", "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: gone}}]"),
    ],
    &["warning EndpointSlice default/t endpoints[0].targetRef"]
)]
#[case::policies(
    &[object("AuthorizationPolicy", "name: p", "spec: {targetRefs: [{kind: Pod, selector: {matchLabels: {a: b}}}, {kind: Service, name: s}]}")],
    &["error AuthorizationPolicy default/p spec.targetRefs[1]", "note AuthorizationPolicy default/p spec.targetRefs[0]"]
)]
#[case::shared_vip(
    &[object("Service", "name: b", "spec: {clusterIP: 10.0.0.1}"), object("Service", "name: a", "spec: {clusterIP: 10.0.0.1}")],
    &["error Service default/b spec.clusterIPs"]
)]
#[case::shared_on_the_host(
    &[object("Pod", "name: a", "spec: {hostNetwork: true}\nstatus: {podIP: 10.0.0.1}"), object("Pod", "name: b", "status: {podIP: 10.0.0.1}")],
    &[]
)]
fn findings(#[case] objects: &[String], #[case] expected: &[&str]) {
    let outcome = apply(&objects.concat());
    assert_eq!(outcome.findings.iter().map(short).collect::<Vec<_>>(), expected);
}

/// Of two running pods with one address, who loses it.
#[rstest]
#[case::by_name("", "phase: Running", "", "phase: Running", "b")]
#[case::the_ready_one_keeps_it("", "conditions: [{type: Ready, status: 'False'}]", "", "phase: Running", "a")]
#[case::the_one_that_stays_keeps_it(
    ", deletionTimestamp: 2026-11-22T10:00:00Z",
    "phase: Running",
    "",
    "phase: Pending",
    "a"
)]
fn who_loses_an_address(
    #[case] metadata_a: &str,
    #[case] status_a: &str,
    #[case] metadata_b: &str,
    #[case] status_b: &str,
    #[case] loser: &str,
) {
    let pod = |name: &str, metadata: &str, status: &str| {
        object("Pod", &format!("name: {name}{metadata}"), &format!("status: {{podIP: 10.0.0.1, {status}}}"))
    };
    let outcome = apply(&(pod("a", metadata_a, status_a) + &pod("b", metadata_b, status_b)));
    let expected = format!("error Pod default/{loser} status.podIPs");
    assert_eq!(outcome.findings.iter().map(short).collect::<Vec<_>>(), [expected]);
}
