//! How long a change of one workload takes in a mesh of 100,000: `make scale` prints it. From the changed file's bytes to the
//! catalog that sessions are served from; what follows is one push of one resource to each node.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_manifest::{Files, Outcome, Store};
use weft_runtime::shared;
use weft_wire::convert::ResourceType;
use weft_wire::delta::Snapshot;
use weft_xds_server::pipeline::{CapturedFrom, Pipeline};
use weft_xds_server::serve::Captured;
use weft_xds_server::translate::MeshSettings;

/// Pods of one file.
const PER_FILE: usize = 100;

/// One file: its pods, and a service for them.
fn file(number: usize, changed: bool) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\n\
         spec: {{clusterIP: 10.{}.{}.1, selector: {{tier: t{number}}}, ports: [{{port: 80}}]}}\n",
        128 + number / 256,
        number % 256
    );
    for pod in 0..PER_FILE {
        let version = if changed && pod == 7 { "2" } else { "1" };
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}-{pod}, namespace: shop, labels: \
             {{app: a{number}, version: '{version}', tier: t{number}}}}}\n\
             spec: {{nodeName: node-{}, serviceAccountName: a{number}}}\nstatus: {{podIP: 10.{}.{}.{}}}\n",
            number % 400,
            number / 256,
            number % 256,
            pod + 2
        );
    }
    text
}

/// The time from a change to the catalog, in two parts: reading, and everything after.
async fn change(pods: usize) -> (Duration, Duration) {
    let mut files = Files::default();
    for number in 0..pods / PER_FILE {
        files.contents.insert(format!("{number}.yaml").into(), Ok(file(number, false).into_bytes().into()));
    }
    let mut store = Store::default();
    let first: Outcome = store.apply(&files);
    assert!(!first.findings.iter().any(|finding| finding.needs_action()), "{:?}", first.findings.first());
    let (mut outcomes, outcomes_reader) = shared::channel(Some(Arc::new(first)));
    let (_captured, captured_reader) = shared::channel(Captured::default());
    let (pipeline, served) =
        Pipeline::new(outcomes_reader, CapturedFrom::Reports(captured_reader), MeshSettings::default());
    let mut catalog = served.catalog.clone();
    let running = tokio::task::spawn_local(pipeline.run());
    let before = catalog.wait_until(Option::is_some).await.unwrap();
    let sequence = before.as_ref().as_ref().unwrap().sequence(ResourceType::Address);

    files.contents.insert("3.yaml".into(), Ok(file(3, true).into_bytes().into()));
    let begin = Instant::now();
    let outcome = store.apply(&files);
    let read = begin.elapsed();
    outcomes.publish(Some(Arc::new(outcome)));
    let after = catalog
        .wait_until(|catalog| {
            catalog.as_ref().is_some_and(|catalog| catalog.sequence(ResourceType::Address) > sequence)
        })
        .await
        .unwrap();
    let applied = begin.elapsed() - read;
    let changed = after.as_ref().as_ref().unwrap().changed_since(ResourceType::Address, sequence);
    assert_eq!(changed, Some(vec!["Kubernetes//Pod/shop/p3-7".into()]), "the push is one resource");
    running.abort();
    (read, applied)
}

#[tokio::test]
async fn one_changed_workload_is_one_push() {
    let local = tokio::task::LocalSet::new();
    local.run_until(change(1_000)).await;
}

#[tokio::test]
#[ignore = "make scale: a measurement"]
async fn the_time_of_a_change_in_a_hundred_thousand() {
    let local = tokio::task::LocalSet::new();
    for pods in [1_000, 100_000] {
        let (read, applied) = local.run_until(change(pods)).await;
        let line = format!("one of {pods} pods changed: read in {read:.2?}, in the catalog {applied:.2?} later\n");
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
}
