//! Golden tests: each `golden/*.yaml` in, its resources out as readable text (`golden/*.snap`), and what is captured in
//! the first lines (`# captured: NAMESPACE/POD`). Fields that have their default value are left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rstest::rstest;
use serde_json::{Map, Value, json};
use weft_manifest::{Outcome, Scanner, Store};
use weft_model::authz::{Connection, evaluate};
use weft_model::workload::Health;
use weft_model::{Change, Mesh, Reason, Resource, Service, Uid, Workload};

use super::{MeshSettings, translate};

fn read(path: &Path) -> Outcome {
    let mut scanner = Scanner::new(path);
    Store::default().apply(&scanner.scan().unwrap().files)
}

fn captured(text: &str) -> BTreeSet<Uid> {
    let pods = text.lines().filter_map(|line| line.strip_prefix("# captured: ")).flat_map(str::split_whitespace);
    pods.map(|pod| pod.split_once('/').unwrap())
        .map(|(namespace, name)| Uid::of_pod("Kubernetes", namespace, name))
        .collect()
}

#[rstest]
fn golden(#[files("src/translate/golden/*.yaml")] path: PathBuf) {
    let text = std::fs::read_to_string(&path).unwrap();
    let outcome = read(&path);
    let resources = translate(&outcome.objects, &captured(&text), &MeshSettings::default());
    let mut shown: Vec<Value> = resources.iter().map(show).collect();
    shown.extend(outcome.findings.iter().map(|finding| {
        json!({ "finding": format!("{}: {}: {}: {}", finding.severity, finding.object, finding.field, finding.problem) })
    }));
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_input_file(&path);
    settings.bind(|| insta::assert_yaml_snapshot!(path.file_stem().unwrap().to_str().unwrap(), shown));
}

fn show(resource: &Resource) -> Value {
    let (kind, value, default) = match resource {
        Resource::Workload(workload) => {
            let plain = Workload { uid: "".into(), ..Workload::named("Kubernetes", "", "") };
            ("workload", serde_json::to_value(workload).unwrap(), serde_json::to_value(plain).unwrap())
        }
        Resource::Service(service) => (
            "service",
            serde_json::to_value(service).unwrap(),
            serde_json::to_value(Service::named("", "", "")).unwrap(),
        ),
        Resource::Policy(policy) => ("policy", serde_json::to_value(policy).unwrap(), json!({ "mode": "Enforce" })),
    };
    json!({ kind: prune(value, &default) })
}

/// Leaves out what is default, and empty lists and mappings.
fn prune(value: Value, default: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            let fields: Map<String, Value> = fields
                .into_iter()
                .filter(|(name, value)| default.get(name) != Some(value))
                .map(|(name, value)| (name.clone(), prune(value, default.get(&name).unwrap_or(&Value::Null))))
                .filter(|(name, value)| name == "groups" || name == "rules" || !empty(value))
                .collect();
            Value::Object(fields)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| prune(item, &Value::Null)).collect()),
        other => other,
    }
}

fn mesh_of(yaml: &str) -> Mesh {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.yaml"), yaml).unwrap();
    let outcome = read(directory.path());
    assert_eq!(outcome.findings, []);
    let resources = translate(&outcome.objects, &BTreeSet::new(), &MeshSettings::default());
    Mesh::default().apply(resources.into_iter().map(Change::Upsert).collect())
}

fn pod(namespace: &str, name: &str, address: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}{labels}}}}}\n\
         spec: {{nodeName: n, serviceAccountName: {name}}}\nstatus: {{podIP: {address}}}\n"
    )
}

fn namespace(name: &str, mtls: Option<&str>) -> String {
    let label = mtls.map(|mode| format!(", labels: {{weft.dev/mtls: {mode}}}")).unwrap_or_default();
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}{label}}}\n")
}

fn verdict(mesh: &Mesh, destination: &str, client: Option<&str>) -> Result<(), Reason> {
    let destination = mesh.workload(&Uid::from(destination)).unwrap();
    let connection = Connection {
        identity: client.map(|client| format!("spiffe://cluster.local/{client}").parse().unwrap()),
        source: "10.0.0.99".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
    };
    evaluate(mesh, destination, &connection).enforced.map(|_| ()).map_err(|denial| denial.reason)
}

/// Mesh, namespace and pod each strict, permissive or silent: the nearest one that speaks decides, for plaintext only.
#[rstest]
fn strict_mode_is_right_on_every_level(
    #[values(None, Some("strict"), Some("permissive"))] mesh: Option<&str>,
    #[values(None, Some("strict"), Some("permissive"))] ns: Option<&str>,
    #[values(None, Some("strict"), Some("permissive"))] label: Option<&str>,
) {
    let labels = label.map(|mode| format!(", weft.dev/mtls: {mode}")).unwrap_or_default();
    let yaml = [
        namespace("weft-system", mesh),
        namespace("shop", ns),
        pod("shop", "cart", "10.0.0.1", &labels),
        // A neighbour with the opposite mode must change nothing.
        pod(
            "shop",
            "other",
            "10.0.0.2",
            if label == Some("strict") { ", weft.dev/mtls: permissive" } else { ", weft.dev/mtls: strict" },
        ),
    ];
    let state = mesh_of(&yaml.concat());
    let expected = match label.or(ns).or(mesh) {
        Some("strict") => Err(Reason::MtlsRequired),
        _ => Ok(()),
    };
    assert_eq!(verdict(&state, "Kubernetes//Pod/shop/cart", None), expected);
    assert_eq!(verdict(&state, "Kubernetes//Pod/shop/cart", Some("ns/x/sa/y")), Ok(()));
}

/// What a rule means in the end, through the model's own evaluation.
#[rstest]
#[case::default_deny("{}", None, false)]
#[case::everybody("{rules: [{}]}", None, true)]
#[case::account("{rules: [{from: [{serviceAccounts: [shop/web]}]}]}", Some("ns/shop/sa/web"), true)]
#[case::other_account("{rules: [{from: [{serviceAccounts: [shop/web]}]}]}", Some("ns/shop/sa/api"), false)]
#[case::one_of_two(
    "{rules: [{from: [{namespaces: [ops]}, {serviceAccounts: [shop/web]}]}]}",
    Some("ns/ops/sa/x"),
    true
)]
#[case::both_of_one(
    "{rules: [{from: [{namespaces: [ops], serviceAccounts: [shop/web]}]}]}",
    Some("ns/ops/sa/x"),
    false
)]
#[case::port("{rules: [{to: [{ports: [8080]}]}]}", None, true)]
#[case::other_port("{rules: [{to: [{ports: [81]}]}]}", None, false)]
#[case::not_port("{rules: [{to: [{notPorts: [8080]}]}]}", None, false)]
#[case::cidr("{rules: [{from: [{cidrs: [10.0.0.0/24]}]}]}", None, true)]
#[case::not_cidr("{rules: [{notFrom: [{cidrs: [10.0.0.99]}]}]}", None, false)]
#[case::not_from("{rules: [{notFrom: [{namespaces: [ops]}]}]}", Some("ns/shop/sa/web"), true)]
#[case::not_from_me("{rules: [{notFrom: [{namespaces: [ops]}]}]}", Some("ns/ops/sa/web"), false)]
#[case::not_from_any("{rules: [{notFrom: [{namespaces: [ops]}, {namespaces: [dev]}]}]}", Some("ns/dev/sa/web"), false)]
#[case::not_from_pair("{rules: [{notFrom: [{namespaces: [ops], cidrs: [10.9.0.0/16]}]}]}", Some("ns/ops/sa/x"), true)]
#[case::nobody_is_not_proven("{rules: [{notFrom: [{namespaces: [ops]}]}]}", None, false)]
#[case::nobody_is_not_proven_either("{rules: [{from: [{notServiceAccounts: [ops/x]}]}]}", None, false)]
#[case::identity("{rules: [{from: [{identities: ['spiffe://cluster.local/ns/a/sa/b']}]}]}", Some("ns/a/sa/b"), true)]
#[case::wildcard("{rules: [{from: [{identities: ['cluster.local/ns/a/*']}]}]}", Some("ns/a/sa/b"), true)]
#[case::any_identity("{rules: [{from: [{identities: ['*']}]}]}", None, false)]
#[case::deny_all_but("{action: Deny, rules: [{notFrom: [{namespaces: [ops]}]}]}", None, false)]
#[case::deny_all_but_me("{action: Deny, rules: [{notFrom: [{namespaces: [ops]}]}]}", Some("ns/ops/sa/x"), true)]
#[case::shadow("{mode: Shadow}", None, true)]
fn what_a_rule_means(#[case] spec: &str, #[case] client: Option<&str>, #[case] permitted: bool) {
    let policy = |namespace: &str, spec: &str| {
        let name = "metadata: {name: p, namespace: ";
        format!("---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n{name}{namespace}}}\nspec: {spec}\n")
    };
    let selecting =
        spec.replacen('{', "{targetRefs: [{group: '', kind: Pod, selector: {matchLabels: {app: cart}}}], ", 1);
    // In its namespace, in Weft's own namespace for the whole mesh, and by selector: alike.
    for (namespace, spec) in [("shop", spec), ("weft-system", spec), ("shop", &*selecting)] {
        let mesh = mesh_of(&(pod("shop", "cart", "10.0.0.1", "") + &policy(namespace, spec)));
        assert_eq!(verdict(&mesh, "Kubernetes//Pod/shop/cart", client).is_ok(), permitted, "{namespace}: {spec}");
    }
    // Another namespace's policy is none of ours.
    let mesh = mesh_of(&(pod("shop", "cart", "10.0.0.1", "") + &policy("elsewhere", spec)));
    assert_eq!(verdict(&mesh, "Kubernetes//Pod/shop/cart", client), Ok(()));
}

/// What a pod says of itself, and what became of it: the service's only pod, beside a ready one, beside another silent one.
#[rstest]
#[case::ready("Ready: 'True', ContainersReady: 'True'", "", [true, true])]
#[case::silent_node("Ready: 'False', ContainersReady: 'True'", "", [true, false])]
#[case::unknown("Ready: 'Unknown', ContainersReady: 'True'", "", [true, false])]
#[case::its_own_fault("Ready: 'False', ContainersReady: 'False'", "", [false, false])]
#[case::no_word("Ready: 'False'", "", [false, false])]
#[case::being_deleted("Ready: 'False', ContainersReady: 'True'", "deleted", [false, false])]
#[case::gate_closed("Ready: 'False', ContainersReady: 'True', gate: 'False'", "", [false, false])]
#[case::gate_without_a_word("Ready: 'False', ContainersReady: 'True'", "gate", [false, false])]
#[case::gate_open("Ready: 'False', ContainersReady: 'True', gate: 'True'", "", [true, false])]
fn a_pod_of_a_silent_node_is_a_service_s_last_resort(
    #[case] conditions: &str,
    #[case] more: &str,
    #[case] expected: [bool; 2],
) {
    let [alone, beside_a_ready_one] = expected;
    let pod = |name: &str, address: u8, conditions: &str, more: &str| {
        let words = conditions.split(", ").filter_map(|word| word.split_once(": "));
        let listed: Vec<_> = words.map(|(name, status)| format!("{{type: {name}, status: {status}}}")).collect();
        let gate = if conditions.contains("gate") || more == "gate" {
            ", readinessGates: [{conditionType: gate}]"
        } else {
            ""
        };
        let deleted = if more == "deleted" { ", deletionTimestamp: '2026-01-01T00:00:00Z'" } else { "" };
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: cart}}{deleted}}}\n\
             spec: {{nodeName: n{gate}}}\nstatus: {{phase: Running, podIP: 10.0.0.{address}, conditions: [{}]}}\n",
            listed.join(", ")
        )
    };
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{port: 80}]}\n";
    let healthy = |mesh: &Mesh, name: &str| {
        mesh.workload(&Uid::of_pod("Kubernetes", "shop", name)).unwrap().health == Health::Healthy
    };
    let own = service.to_owned() + &pod("a", 1, conditions, more);
    assert_eq!(healthy(&mesh_of(&own), "a"), alone);
    let ready = mesh_of(&(own.clone() + &pod("b", 2, "Ready: 'True', ContainersReady: 'True'", "")));
    assert_eq!((healthy(&ready, "a"), healthy(&ready, "b")), (beside_a_ready_one, true));
    let silent = mesh_of(&(own + &pod("b", 2, "Ready: 'False', ContainersReady: 'True'", "")));
    assert_eq!((healthy(&silent, "a"), healthy(&silent, "b")), (alone, !beside_a_ready_one));
}

#[test]
fn how_long_a_thousand_pods_take() {
    let mut yaml = namespace("shop", Some("strict"));
    for number in 0..1000 {
        let address = format!("10.{}.{}.{}", number / 65536, number / 256 % 256, number % 256);
        yaml += &pod("shop", &format!("p{number}"), &address, &format!(", tier: t{}", number % 100));
    }
    for number in 0..100 {
        yaml += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.{number}, selector: {{tier: t{number}}}, ports: [{{port: 80}}]}}\n"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.yaml"), &yaml).unwrap();
    let start = Instant::now();
    let outcome = read(directory.path());
    let parsed = start.elapsed();
    assert_eq!(outcome.findings, []);
    let start = Instant::now();
    let resources = translate(&outcome.objects, &BTreeSet::new(), &MeshSettings::default());
    println!("1,000 pods, 100 services: read in {parsed:?}, translated in {:?}", start.elapsed());
    assert_eq!(resources.len(), 1101);
    assert_eq!(resources, translate(&outcome.objects, &BTreeSet::new(), &MeshSettings::default()));
}
