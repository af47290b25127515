//! From YAML to the roster's input.

use super::*;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weft.dev/mesh: enabled, weft.dev/mtls: strict}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, uid: c1, annotations: {weft.dev/netns: cart-ns}}
spec: {nodeName: one, serviceAccountName: cart, containers: [{name: a, image: a}]}
status: {podIPs: [{ip: 10.0.0.2}, {ip: 'fd00::2'}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: out, namespace: shop, labels: {weft.dev/mesh: disabled}}
spec: {nodeName: one, containers: [{name: a, image: a}]}
status: {podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere, namespace: shop}
spec: {nodeName: two, containers: [{name: a, image: a}]}
status: {podIPs: [{ip: 10.0.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop}
spec: {nodeName: one, hostNetwork: true, containers: [{name: a, image: a}]}
status: {podIPs: [{ip: 192.168.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop}
spec: {nodeName: one, containers: [{name: a, image: a}]}
status: {podIPs: [{ip: 10.0.0.2}], phase: Succeeded}
";

#[tokio::test]
async fn pods_of_this_node_with_namespace_and_mode_and_changes() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.yaml"), SHOP).unwrap();
    let memory = tempfile::tempdir().unwrap();
    let (_source, mut wanted) = DirectorySource::start(directory.path(), memory.path(), "one").await.unwrap();
    let pods = wanted.borrow_and_update().clone();
    let cart = PodSpec {
        uid: "c1".into(),
        name: "cart".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        netns: Some("cart-ns".into()),
        strict: true,
        enrolled: true,
        probe_ports: std::collections::BTreeSet::new(),
    };
    assert_eq!(pods.len(), 2, "{pods:?}");
    assert_eq!(pods[0], cart);
    assert_eq!((pods[1].uid.as_str(), pods[1].enrolled), ("shop/out", false));

    std::fs::write(directory.path().join("shop.yaml"), SHOP.replace("weft.dev/mesh: enabled, ", "")).unwrap();
    let changed = tokio::time::timeout(std::time::Duration::from_secs(10), wanted.changed());
    changed.await.unwrap().unwrap();
    assert!(!wanted.borrow()[0].enrolled);
}

#[tokio::test]
async fn a_namespace_that_breaks_while_this_half_restarts_releases_nobody() {
    let (directory, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = directory.path().join("shop.yaml");
    std::fs::write(&file, SHOP).unwrap();
    let (first, wanted) = DirectorySource::start(directory.path(), memory.path(), "one").await.unwrap();
    assert!(wanted.borrow().iter().any(|pod| pod.name == "cart" && pod.enrolled));
    drop((first, wanted));
    std::fs::write(&file, SHOP.replace("labels: {weft.dev/mesh", "labels: [weft.dev/mesh")).unwrap();
    let (_second, wanted) = DirectorySource::start(directory.path(), memory.path(), "one").await.unwrap();
    assert!(wanted.borrow().iter().any(|pod| pod.name == "cart" && pod.enrolled), "{:?}", wanted.borrow());
}
