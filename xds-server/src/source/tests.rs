//! The directory source: what is read arrives, and what is wrong can be seen.

use std::fs;
use std::time::Duration;

use weft_runtime::metrics::Registry;

use super::{findings, start};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn changes_arrive_and_findings_are_visible() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.yaml");
    fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").unwrap();
    let registry = Registry::new("test", "0");
    let mut source = start(directory.path(), None, &registry).unwrap();

    let first = source.outcomes.wait_until(Option::is_some);
    let first = tokio::time::timeout(DEADLINE, first).await.unwrap().unwrap();
    assert_eq!(first.as_ref().as_ref().map(|outcome| outcome.objects.namespaces.len()), Some(1));

    fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weft.dev/mesh: yes}}\n")
        .unwrap();
    let broken = source.outcomes.wait_until(|outcome| outcome.as_ref().is_some_and(|one| !one.findings.is_empty()));
    tokio::time::timeout(DEADLINE, broken).await.unwrap().unwrap();
    let shown = findings(&source.outcomes);
    assert_eq!(shown["findings"][0]["field"], "metadata.labels.weft.dev/mesh");
    assert_eq!(shown["lastGoodVersion"][0], "Namespace shop");
    let metrics = registry.encode();
    for line in ["weft_config_findings{severity=\"error\"} 1", "weft_config_objects_kept 1", "weft_config_objects 1"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    source.stop();
}

#[tokio::test]
async fn a_missing_directory_is_refused_at_once() {
    let error = start("/nonexistent/mesh".as_ref(), None, &Registry::new("test", "0")).unwrap_err();
    assert!(error.to_string().contains("expected a directory"), "{error}");
}
