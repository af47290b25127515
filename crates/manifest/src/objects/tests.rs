//! What is refused, and with which words: one table per kind. Each case is a good document with one fault.

use rstest::rstest;

use super::{Object, Reading, read};
use crate::document::split;
use crate::finding::{Finding, Severity};

/// `field: problem` of every finding.
fn findings(yaml: &str) -> Vec<String> {
    let texts = |findings: Vec<Finding>| {
        let text = |finding: Finding| match finding.severity {
            Severity::Error => format!("{}: {}", finding.field, finding.problem),
            other => format!("{other}: {}: {}", finding.field, finding.problem),
        };
        findings.into_iter().map(text).collect()
    };
    let documents = split("x.yaml", yaml.as_bytes());
    let [document] = &documents[..] else { panic!("{documents:?}") };
    match document {
        Err(finding) => texts(vec![finding.clone()]),
        Ok(document) => match read(document) {
            Reading::Good(_, _, findings) | Reading::Refused(_, findings) => texts(findings),
            Reading::Foreign(note) => texts(vec![note]),
        },
    }
}

fn object(yaml: &str) -> Object {
    let documents = split("x.yaml", yaml.as_bytes());
    match read(documents[0].as_ref().unwrap()) {
        Reading::Good(_, object, findings) => {
            assert_eq!(findings, []);
            object
        }
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::no_kind("{apiVersion: v1}", &["kind: is missing; expected a text"])]
#[case::kind_is_a_list("{apiVersion: v1, kind: []}", &["kind: is a list; expected a text"])]
#[case::neither("{a: 1}", &["apiVersion: is missing; expected a text", "kind: is missing; expected a text"])]
#[case::foreign("{apiVersion: apps/v1, kind: Deployment}", &["note: : is none of the kinds that Weft reads; ignored"])]
#[case::same_word_in_another_group("{apiVersion: serving.knative.dev/v1, kind: Service}", &["note: : is none of the kinds that Weft reads; ignored"])]
#[case::old_version("{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice}", &["apiVersion: is 'discovery.k8s.io/v1beta1'; expected 'discovery.k8s.io/v1' for a EndpointSlice"])]
#[case::unknown_of_ours("{apiVersion: weft.dev/v1alpha1, kind: AuthorisationPolicy}", &["kind: 'AuthorisationPolicy' is no kind of weft.dev; expected AuthorizationPolicy"])]
#[case::no_name("{apiVersion: v1, kind: Namespace, metadata: {}}", &["metadata.name: is missing; expected a text"])]
#[case::no_metadata("{apiVersion: v1, kind: Namespace}", &["metadata: is missing; expected at least a name", "metadata.name: is missing; expected a text"])]
#[case::bad_name("{apiVersion: v1, kind: Namespace, metadata: {name: Shop}}", &["metadata.name: is 'Shop'; expected at most 63 of a-z 0-9 -, beginning and ending with a-z or 0-9"])]
#[case::namespace_of_a_namespace("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}", &["metadata.namespace: a Namespace belongs to no namespace; leave the field out"])]
#[case::misspelt_metadata("{apiVersion: v1, kind: Namespace, metadata: {name: a, lables: {}}}", &["metadata.lables: unknown field; did you mean 'labels'?"])]
#[case::label_yes("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {weft.dev/mesh: yes}}}", &["metadata.labels.weft.dev/mesh: is 'yes'; expected enabled or disabled"])]
#[case::label_true("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {weft.dev/mesh: true}}}", &["metadata.labels.weft.dev/mesh: is the boolean true; expected a text", "metadata.labels.weft.dev/mesh: is ''; expected enabled or disabled"])]
#[case::mtls_label("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {weft.dev/mtls: STRICT}}}", &["metadata.labels.weft.dev/mtls: is 'STRICT'; expected strict or permissive"])]
#[case::unknown_label("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {weft.dev/mseh: enabled}}}", &["metadata.labels.weft.dev/mseh: unknown label 'weft.dev/mseh' of Weft; expected weft.dev/mesh, weft.dev/mtls or weft.dev/use-waypoint"])]
#[case::label_elsewhere("{apiVersion: v1, kind: Service, metadata: {name: a, labels: {weft.dev/mesh: enabled}}}", &["warning: metadata.labels.weft.dev/mesh: has no effect on a Service; expected it on a Namespace or Pod"])]
#[case::waypoint("{apiVersion: v1, kind: Service, metadata: {name: a, labels: {weft.dev/use-waypoint: w}}}", &["warning: metadata.labels.weft.dev/use-waypoint: has no effect: this version of Weft has no waypoints; expected no such label"])]
#[case::label_as_annotation("{apiVersion: v1, kind: Namespace, metadata: {name: a, annotations: {weft.dev/mesh: enabled}}}", &["metadata.annotations.weft.dev/mesh: has no effect; expected it among the labels"])]
#[case::top_level("{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, spec: {}}", &["spec: unknown field; expected apiVersion, kind, metadata, automountServiceAccountToken, imagePullSecrets or secrets"])]
#[case::node("{apiVersion: v1, kind: Node, metadata: {name: a}, status: {adresses: []}}", &["status.adresses: unknown field; did you mean 'addresses'?"])]
fn frame(#[case] yaml: &str, #[case] expected: &[&str]) {
    assert_eq!(findings(yaml), expected);
}

#[rstest]
#[case::good("spec: {nodeName: n}", &[])]
#[case::misspelt_spec("spec: {nodName: n}", &["spec.nodName: unknown field; did you mean 'nodeName'?"])]
#[case::spec_is_text("spec: hello", &["spec: is the text 'hello'; expected a mapping"])]
#[case::host_network("spec: {hostNetwork: 'true'}", &["spec.hostNetwork: is the text 'true'; expected true or false"])]
#[case::account("spec: {serviceAccountName: a/b}", &["spec.serviceAccountName: is 'a/b'; expected at most 253 of a-z 0-9 - ., beginning and ending with a-z or 0-9"])]
#[case::port("spec: {containers: [{name: c, ports: [{containerPort: 70000}]}]}", &["spec.containers[0].ports[0].containerPort: is the number 70000; expected a port number from 1 to 65535"])]
#[case::port_field("spec: {containers: [{name: c, ports: [{port: 80}]}]}", &["spec.containers[0].ports[0].port: unknown field; expected containerPort, hostIP, hostPort, name or protocol", "spec.containers[0].ports[0].containerPort: is missing; expected a port number from 1 to 65535"])]
#[case::container_field("spec: {containers: [{name: c, port: [{containerPort: 80}]}]}", &["spec.containers[0].port: unknown field; did you mean 'ports'?"])]
#[case::address("status: {podIPs: [{ip: 10.0.0.300}]}", &["status.podIPs[0].ip: is '10.0.0.300'; expected an IP address"])]
#[case::addresses_as_text("status: {podIPs: 10.0.0.3}", &["status.podIPs: is the text '10.0.0.3'; expected a list"])]
#[case::misspelt_address("status: {podIp: 10.0.0.3}", &["status.podIp: unknown field; did you mean 'podIP'?"])]
#[case::status_grows("status: {allocatedResources: {}, extendedResourceClaimStatus: {}, resize: x, somethingNew: {}, volumeHealth: []}", &[])]
#[case::phase("status: {phase: Runing}", &["status.phase: is 'Runing'; expected Pending, Running, Succeeded, Failed or Unknown"])]
#[case::all_at_once("spec: {nodeName: 1, hostNetwork: 2}", &["spec.nodeName: is the number 1; expected a text", "spec.hostNetwork: is the number 2; expected true or false"])]
#[case::null_is_absent("spec: {nodeName: null, containers: null}\nstatus: null", &[])]
fn pods(#[case] rest: &str, #[case] expected: &[&str]) {
    let found = findings(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n{rest}\n"));
    assert_eq!(found, expected);
}

#[rstest]
#[case("a", true)]
#[case("/run/netns/a", true)]
#[case("/proc/7/ns/net", true)]
#[case("", false)]
#[case("a/b", false)]
#[case("..", false)]
#[case("/run/netns/../../etc", false)]
#[case("/", false)]
fn where_a_network_namespace_may_be(#[case] value: &str, #[case] good: bool) {
    let yaml =
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, annotations: {{weft.dev/netns: '{value}'}}}}}}");
    assert_eq!(findings(&yaml).is_empty(), good, "{:?}", findings(&yaml));
}

#[rstest]
#[case::good("{clusterIP: 10.0.0.1, ports: [{port: 80}]}", &[])]
#[case::selector("{slector: {a: b}}", &["spec.slector: unknown field; did you mean 'selector'?"])]
#[case::selector_value("{selector: {a: 1}}", &["spec.selector.a: is the number 1; expected a text"])]
#[case::port_missing("{ports: [{name: x}]}", &["spec.ports[0].port: is missing; expected a port number from 1 to 65535"])]
#[case::port_zero("{ports: [{port: 0}]}", &["spec.ports[0].port: is the number 0; expected a port number from 1 to 65535"])]
#[case::target("{ports: [{port: 1, targetPort: 1.5}]}", &["spec.ports[0].targetPort: is the number 1.5; expected a port number from 1 to 65535"])]
#[case::target_misspelt("{ports: [{port: 1, targetport: 5}]}", &["spec.ports[0].targetport: unknown field; did you mean 'targetPort'?"])]
#[case::protocol("{ports: [{port: 1, protocol: tcp}]}", &["spec.ports[0].protocol: is 'tcp'; expected TCP, UDP or SCTP"])]
#[case::names("{ports: [{port: 1}, {port: 2, name: b}]}", &["spec.ports[0].name: is missing; expected a name, because the service has several ports"])]
#[case::twice("{ports: [{port: 1, name: a}, {port: 1, name: b}]}", &["spec.ports[1]: repeats port 1 or its name; expected each once"])]
#[case::tcp_and_udp("{ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]}", &[])]
#[case::headless("{clusterIP: None, clusterIPs: [None]}", &[])]
#[case::both("{clusterIP: None, clusterIPs: [10.0.0.1]}", &["spec.clusterIP: says both None (headless) and an address; expected one of the two"])]
#[case::kind("{type: NodePrt}", &["spec.type: is 'NodePrt'; expected ClusterIP, NodePort, LoadBalancer or ExternalName"])]
#[case::traffic("{trafficDistribution: Close}", &["spec.trafficDistribution: is 'Close'; expected PreferClose, PreferSameZone or PreferSameNode"])]
fn services(#[case] spec: &str, #[case] expected: &[&str]) {
    let found = findings(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {spec}\n"));
    assert_eq!(found, expected);
}

#[rstest]
#[case::good("addressType: IPv4", &[])]
#[case::type_missing("ports: []", &["addressType: is missing; expected a text"])]
#[case::unknown_type("addressType: IPv5", &["addressType: is 'IPv5'; expected IPv4 or IPv6"])]
#[case::fqdn("addressType: FQDN", &["warning: addressType: is FQDN, which neither Kubernetes nor Weft can route; expected IPv4 or IPv6"])]
#[case::no_address("addressType: IPv4\nendpoints: [{}]", &["endpoints[0].addresses: is missing; expected a list of IP addresses"])]
#[case::misspelt("addressType: IPv4\nendpoints: [{addresses: [], targetref: {}}]", &["endpoints[0].targetref: unknown field; did you mean 'targetRef'?"])]
#[case::condition("addressType: IPv4\nendpoints: [{addresses: [], conditions: {redy: true}}]", &["endpoints[0].conditions.redy: unknown field; did you mean 'ready'?"])]
#[case::subsets("addressType: IPv4\nsubsets: []", &["subsets: unknown field; expected addressType, apiVersion, endpoints, kind, metadata or ports"])]
fn slices(#[case] rest: &str, #[case] expected: &[&str]) {
    let found =
        findings(&format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s}}\n{rest}\n"));
    assert_eq!(found, expected);
}

#[rstest]
#[case::default_deny("{}", &[])]
#[case::no_spec("null", &["spec: is missing; expected targetRefs, action, mode or rules ('spec: {}' is default-deny)"])]
#[case::action("{action: ALLOW}", &["spec.action: is 'ALLOW'; expected Allow or Deny"])]
#[case::mode("{mode: Shadowed}", &["spec.mode: is 'Shadowed'; expected Enforce or Shadow"])]
#[case::deny_nothing("{action: Deny}", &["spec.rules: a Deny without rules denies nothing; expected at least one rule (one without fields matches all)"])]
#[case::unknown("{rule: []}", &["spec.rule: unknown field; did you mean 'rules'?"])]
#[case::unknown_in_rule("{rules: [{form: []}]}", &["spec.rules[0].form: unknown field; did you mean 'from'?"])]
#[case::empty_from("{rules: [{from: []}]}", &["spec.rules[0].from: an empty list can be read in two ways; expected at least one entry, or the field left out"])]
#[case::empty_entry("{rules: [{from: [{}]}]}", &["spec.rules[0].from[0]: has no condition; expected identities, namespaces, serviceAccounts or cidrs (or their not-forms)"])]
#[case::empty_values("{rules: [{to: [{ports: []}]}]}", &["spec.rules[0].to[0].ports: an empty list can be read in two ways; expected at least one entry, or the field left out", "spec.rules[0].to[0]: has no condition; expected ports or notPorts"])]
#[case::empty_targets("{targetRefs: []}", &["spec.targetRefs: an empty list can be read in two ways; expected at least one entry, or the field left out"])]
#[case::account("{rules: [{from: [{serviceAccounts: [web]}]}]}", &["spec.rules[0].from[0].serviceAccounts[0]: is 'web'; expected NAMESPACE/NAME of a service account", "spec.rules[0].from[0]: has no condition; expected identities, namespaces, serviceAccounts or cidrs (or their not-forms)"])]
#[case::http_at_the_agent("{rules: [{to: [{methods: [GET]}]}]}", &["spec.rules[0].to[0].methods: is about HTTP, which the node agent does not read; expected targetRefs to name a Service"])]
#[case::http_for_pods("{targetRefs: [{kind: Pod, selector: {}}], rules: [{to: [{ports: [1], paths: [/x]}]}]}", &["spec.rules[0].to[0].paths: is about HTTP, which the node agent does not read; expected targetRefs to name a Service"])]
#[case::http_for_a_service("{targetRefs: [{kind: Service, name: s}], rules: [{to: [{paths: [/x]}]}]}", &[])]
#[case::pod_by_name("{targetRefs: [{kind: Pod, name: p}]}", &["spec.targetRefs[0].name: pods come and go; expected a selector instead"])]
#[case::pod_without_selector("{targetRefs: [{kind: Pod}]}", &["spec.targetRefs[0].selector: is missing; expected matchLabels or matchExpressions"])]
#[case::service_without_name("{targetRefs: [{kind: Service}]}", &["spec.targetRefs[0].name: is missing; expected a text"])]
#[case::other_target("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}", &["spec.targetRefs[0].group: is 'gateway.networking.k8s.io'; expected '' (the group of Pod and Service)", "spec.targetRefs[0].kind: is 'Gateway'; expected Pod or Service"])]
#[case::selector("{targetRefs: [{kind: Pod, selector: {app: x}}]}", &["spec.targetRefs[0].selector.app: unknown field; expected matchLabels or matchExpressions"])]
#[case::not_from_negates_once("{rules: [{notFrom: [{notNamespaces: [a]}]}]}", &["spec.rules[0].notFrom[0].notNamespaces: unknown field; expected identities, namespaces, serviceAccounts or cidrs", "spec.rules[0].notFrom[0]: has no condition; expected identities, namespaces, serviceAccounts or cidrs"])]
fn policies(#[case] spec: &str, #[case] expected: &[&str]) {
    let yaml =
        format!("apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {spec}\n");
    assert_eq!(findings(&yaml), expected);
}

#[rstest]
#[case::identity("identities", "spiffe://cluster.local/ns/a/sa/b", true)]
#[case::identity_without_scheme("identities", "cluster.local/ns/a/sa/b", true)]
#[case::identity_prefix("identities", "spiffe://cluster.local/ns/a/*", true)]
#[case::identity_suffix("identities", "'*/sa/b'", true)]
#[case::any_identity("identities", "'*'", true)]
#[case::star_inside("identities", "spiffe://cluster.local/ns/*/sa/b", false)]
#[case::two_stars("identities", "'*a*'", false)]
#[case::nonsense("identities", "web", false)]
#[case::namespace("namespaces", "ops", true)]
#[case::namespace_prefix("namespaces", "ops-*", true)]
#[case::namespace_path("namespaces", "ops/web", false)]
#[case::empty("namespaces", "''", false)]
#[case::range("cidrs", "10.0.0.0/8", true)]
#[case::address("cidrs", "'::1'", true)]
#[case::host_bits("cidrs", "10.1.0.0/8", false)]
#[case::too_long("cidrs", "10.0.0.0/33", false)]
#[case::ipv4_as_ipv6("cidrs", "'::ffff:10.0.0.0/104'", false)]
#[case::account("serviceAccounts", "a/b", true)]
#[case::account_star("serviceAccounts", "a/*", false)]
fn values_of_conditions(#[case] field: &str, #[case] value: &str, #[case] good: bool) {
    for not in [false, true] {
        let name = if not { format!("not{}{}", field[..1].to_uppercase(), &field[1..]) } else { field.to_owned() };
        let yaml = format!(
            "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\n\
             spec: {{rules: [{{from: [{{{name}: [{value}], namespaces: [x]}}]}}]}}\n"
        );
        let yaml = if name == "namespaces" { yaml.replace(", namespaces: [x]", "") } else { yaml };
        assert_eq!(findings(&yaml).is_empty(), good, "{yaml}: {:?}", findings(&yaml));
    }
}

#[test]
fn reserved_names_are_refused() {
    let yaml =
        "{apiVersion: weft.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {name: weft-strict-mtls}, spec: {}}";
    let expected = "metadata.name: names that begin with 'weft-strict-mtls' are Weft's own; expected another one";
    assert_eq!(findings(yaml), [expected]);
}

#[test]
fn ports_of_sidecars_count_and_those_of_init_containers_do_not() {
    let port = |name: &str, number: u16| format!("ports: [{{name: {name}, containerPort: {number}}}]");
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{{name: a, {}}}]\n  initContainers:\n  \
         - {{name: b, restartPolicy: Always, {}}}\n  - {{name: c, {}}}\n",
        port("web", 1),
        port("side", 2),
        port("gone", 3)
    );
    let Object::Pod(pod) = object(&yaml) else { panic!("not a pod") };
    assert_eq!(["web", "side", "gone"].map(|name| pod.named_port(name)), [Some(1), Some(2), None]);
}
