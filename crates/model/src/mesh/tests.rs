//! The index: look-ups, tie-breaks, and that any order of changes leads to the same mesh.

use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::Mesh;
use crate::address::NetworkAddress;
use crate::change::{Change, Resource, ResourceKey};
use crate::service::{Service, ServiceAddress, ServiceKey};
use crate::workload::{TunnelProtocol, Uid, Workload};

fn at(address: &str) -> NetworkAddress {
    NetworkAddress::new("", address.parse().unwrap())
}

fn vip(namespace: &str, name: &str, address: &str) -> Service {
    let mut service = Service::named(namespace, name, &format!("{name}.{namespace}.svc.cluster.local"));
    let prefix = if address.contains('/') { address.to_owned() } else { format!("{address}/32") };
    service.addresses = vec![ServiceAddress { network: "".into(), prefix: prefix.parse().unwrap() }];
    service
}

fn services(list: Vec<Service>) -> Mesh {
    Mesh::default().apply(list.into_iter().map(|service| Change::Upsert(Resource::Service(service))).collect())
}

fn pod(name: &str, address: &str) -> Workload {
    let mut workload = Workload::named("Kubernetes", "shop", name);
    workload.addresses = vec![address.parse().unwrap()];
    workload
}

#[test]
fn the_same_vip_in_several_services() {
    let mut plain = vip("ops", "a", "10.96.0.1");
    plain.canonical = false;
    let mesh = services(vec![plain, vip("shop", "b", "10.96.0.1"), vip("zoo", "c", "10.96.0.1")]);
    let name = |namespace| mesh.service_at(&at("10.96.0.1"), namespace).unwrap().name.to_string();
    assert_eq!(name("zoo"), "c", "own namespace first");
    assert_eq!(name("ops"), "a", "own namespace, even when it is not canonical");
    assert_eq!(name("else"), "b", "then canonical, then the first");
}

#[test]
fn ranges_lose_to_exact_addresses_and_win_by_length() {
    let mesh =
        services(vec![vip("s", "wide", "10.0.0.0/8"), vip("s", "narrow", "10.1.0.0/16"), vip("s", "one", "10.1.1.1")]);
    let name = |address| mesh.service_at(&at(address), "s").map(|service| service.name.to_string());
    assert_eq!(name("10.1.1.1").as_deref(), Some("one"));
    assert_eq!(name("10.1.1.2").as_deref(), Some("narrow"));
    assert_eq!(name("10.2.0.1").as_deref(), Some("wide"));
    assert_eq!(name("11.0.0.1"), None);
}

#[test]
fn invisible_services_do_not_count() {
    let mut hidden = vip("ops", "a", "10.96.0.1");
    hidden.namespace_only = true;
    let mesh = services(vec![hidden]);
    assert!(mesh.service_at(&at("10.96.0.1"), "shop").is_none());
    assert!(mesh.service_at(&at("10.96.0.1"), "ops").is_some());
}

#[test]
fn the_same_address_in_several_workloads() {
    let mut meshed = pod("b", "10.244.0.2");
    meshed.tunnel = TunnelProtocol::Hbone;
    let mut host = pod("c", "10.244.0.2");
    host.host_network = true;
    let list = [pod("a", "10.244.0.2"), meshed, host];
    let mesh = Mesh::default().apply(list.map(|workload| Change::Upsert(Resource::Workload(workload))).into());
    assert_eq!(&*mesh.workload_at(&at("10.244.0.2")).unwrap().name, "b");
    let mesh = mesh.apply(vec![Change::Remove(ResourceKey::Workload(Uid::of_pod("Kubernetes", "shop", "b")))]);
    assert_eq!(&*mesh.workload_at(&at("10.244.0.2")).unwrap().name, "a");
    assert!(mesh.workload_at(&NetworkAddress::new("other", "10.244.0.2".parse().unwrap())).is_none());
}

/// Few names and addresses, so that changes meet each other.
fn change() -> impl Strategy<Value = Change> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let key = |name: &str| ServiceKey::new("shop", &format!("{name}.shop.svc.cluster.local"));
    let workload = (name.clone(), 1..4_u8, prop::sample::select(vec!["a", "b"]), any::<bool>()).prop_map(
        move |(name, octet, service, host)| {
            let mut workload = pod(name, &format!("10.244.0.{octet}"));
            workload.services = [(key(service), vec![])].into_iter().collect();
            workload.host_network = host;
            Change::Upsert(Resource::Workload(workload))
        },
    );
    let service = (name.clone(), 1..4_u8)
        .prop_map(|(name, octet)| Change::Upsert(Resource::Service(vip("shop", name, &format!("10.96.0.{octet}")))));
    let gone =
        name.clone().prop_map(|name| Change::Remove(ResourceKey::Workload(Uid::of_pod("Kubernetes", "shop", name))));
    let no_service = name.prop_map(move |name| Change::Remove(ResourceKey::Service(key(name))));
    prop_oneof![3 => workload, 3 => service, 1 => gone, 1 => no_service]
}

proptest! {
    /// The index after any history equals the index made afresh of what is left.
    #[test]
    fn history_does_not_matter(history in prop::collection::vec(change(), 0..40)) {
        let lived = history.iter().cloned().fold(Mesh::default(), |mesh, change| mesh.apply(vec![change]));
        let left = lived.workloads().map(|workload| Change::Upsert(Resource::Workload((**workload).clone())));
        let left = left.chain(lived.services().map(|service| Change::Upsert(Resource::Service((**service).clone()))));
        let fresh = Mesh::default().apply(left.collect());
        for octet in 0..5 {
            let pod = at(&format!("10.244.0.{octet}"));
            prop_assert_eq!(lived.workload_at(&pod), fresh.workload_at(&pod));
            let vip = at(&format!("10.96.0.{octet}"));
            prop_assert_eq!(lived.service_at(&vip, "shop"), fresh.service_at(&vip, "shop"));
        }
        for name in ["a", "b", "c"] {
            let key = ServiceKey::new("shop", &format!("{name}.shop.svc.cluster.local"));
            let sorted = |mesh: &Mesh| {
                let mut uids: Vec<_> = mesh.endpoints(&key).into_iter().flat_map(|set| set.workloads()).map(|workload| workload.uid.clone()).collect();
                uids.sort();
                uids
            };
            prop_assert_eq!(sorted(&lived), sorted(&fresh));
        }
    }
}
