//! Files as `kubectl get -o yaml` and people write them: everything is understood, nothing is complained about.

use std::path::Path;

use weft_manifest::{Finding, Scanner, Store};
use weft_model::enrolment::MtlsMode;

#[test]
fn real_files_are_read_without_complaint() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let outcome = Store::default().apply(&Scanner::new(data.join("kubectl-get-all.yaml")).scan().unwrap().files);
    let complaints: Vec<String> =
        outcome.findings.iter().filter(|found| found.needs_action()).map(Finding::to_string).collect();
    assert_eq!(complaints, Vec::<String>::new());
    // The ConfigMap is noted, not more.
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.objects.len(), 8);

    let objects = &outcome.objects;
    let pod = &objects.pods[&("shop".to_owned(), "cart-6b9f7c5d4-k2x8w".to_owned())];
    assert_eq!(pod.uid(), "c4a2f3d1-40a2-45a3-9b3f-7c5f5f9d9c21");
    assert_eq!(pod.addresses.len(), 2);
    assert!(pod.is_ready() && objects.enrolment(pod).is_enrolled());
    assert_eq!(objects.mtls_mode(pod), MtlsMode::Strict);
    assert_eq!(objects.nodes["mesh-worker"].addresses.len(), 2);
    let dns = &objects.services[&("kube-system".to_owned(), "kube-dns".to_owned())];
    assert_eq!(dns.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [53, 9153], "TCP only");
}

#[test]
fn the_same_as_json_is_the_same() {
    let yaml = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kubectl-get-all.yaml");
    let read = |path: &Path| Store::default().apply(&Scanner::new(path).scan().unwrap().files);
    let value: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(&yaml).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("all.json");
    std::fs::write(&json, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    let (from_yaml, from_json) = (read(&yaml).objects, read(&json).objects);
    assert_eq!(from_yaml.pods, from_json.pods);
    assert_eq!(from_yaml.services, from_json.services);
    assert_eq!(from_yaml.slices, from_json.slices);
    assert_eq!(from_yaml.policies, from_json.policies);
}
