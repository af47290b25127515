//! The balancing table: who may be chosen, and how the choice is spread.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rstest::rstest;

use super::{EndpointRequest, Mesh, choose};
use crate::change::{Change, Resource};
use crate::reason::Reason;
use crate::service::{AppProtocol, BalanceMode, IpFamilies, LoadBalancing, Scope, Service, ServicePort};
use crate::workload::{Health, PortMapping, Uid, Workload};

fn service() -> Service {
    let mut service = Service::named("shop", "cart", "cart.shop.svc.cluster.local");
    service.ports = vec![ServicePort { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }];
    service
}

fn endpoint(name: &str, zone: &str) -> Workload {
    let mut workload = Workload::named("Kubernetes", "shop", name);
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u8>().unwrap_or(1);
    workload.addresses =
        vec![format!("10.244.1.{number}").parse().unwrap(), format!("fd00::{number}").parse().unwrap()];
    workload.locality.zone = zone.into();
    workload.node = format!("node-{zone}").as_str().into();
    workload.services = [(service().key, vec![])].into_iter().collect();
    workload
}

fn mesh(workloads: impl IntoIterator<Item = Workload>) -> Mesh {
    Mesh::default().apply(workloads.into_iter().map(|workload| Change::Upsert(Resource::Workload(workload))).collect())
}

/// How often each endpoint is chosen in 2000 draws.
fn spread(mesh: &Mesh, service: &Service, busy: &[(&str, u32)], exclude: &[Uid]) -> BTreeMap<String, u32> {
    spread_avoiding(mesh, service, busy, exclude, &[])
}

fn spread_avoiding(
    mesh: &Mesh,
    service: &Service,
    busy: &[(&str, u32)],
    exclude: &[Uid],
    avoided: &[&str],
) -> BTreeMap<String, u32> {
    let mut rng = StdRng::seed_from_u64(7);
    let source = endpoint("web0", "a");
    let busy: BTreeMap<Uid, u32> = busy.iter().map(|(name, n)| (Uid::of_pod("Kubernetes", "shop", name), *n)).collect();
    let request =
        EndpointRequest { service, service_port: 80, source: &source, prefer_ipv6: false, exact: None, exclude };
    let mut counts = BTreeMap::new();
    for _ in 0..2000 {
        let outstanding = |uid: &Uid| busy.get(uid).copied().unwrap_or_default();
        if let Ok(chosen) =
            choose(mesh, &request, outstanding, |chosen| avoided.contains(&&*chosen.workload.name), &mut rng)
        {
            *counts.entry(chosen.workload.name.to_string()).or_default() += 1;
        }
    }
    counts
}

fn names(counts: &BTreeMap<String, u32>) -> Vec<&str> {
    counts.keys().map(String::as_str).collect()
}

#[test]
fn equals_share_evenly() {
    for size in [3_u32, 40] {
        let mesh = mesh((1..=size).map(|n| endpoint(&format!("c{n}"), "a")));
        let counts = spread(&mesh, &service(), &[], &[]);
        assert_eq!(counts.len(), size as usize);
        let (low, high) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(*high < low * 3 + 20, "{counts:?}");
    }
}

#[test]
fn the_less_busy_of_two_gets_more() {
    let counts = spread(&mesh([endpoint("c1", "a"), endpoint("c2", "a")]), &service(), &[("c1", 10)], &[]);
    assert!(counts["c2"] > counts["c1"] * 2, "{counts:?}");
}

#[test]
fn weight_counts() {
    let mut heavy = endpoint("c1", "a");
    heavy.capacity = 9;
    let mut none = endpoint("c3", "a");
    none.capacity = 0;
    let counts = spread(&mesh([heavy, endpoint("c2", "a"), none]), &service(), &[], &[]);
    assert!(counts["c1"] > counts["c2"] * 5 && !counts.contains_key("c3"), "{counts:?}");
}

#[test]
fn the_unhealthy_and_the_excluded_get_nothing() {
    let mut sick = endpoint("c1", "a");
    sick.health = Health::Unhealthy;
    let mesh = mesh([sick, endpoint("c2", "a"), endpoint("c3", "a")]);
    let tried = [Uid::of_pod("Kubernetes", "shop", "c2")];
    assert_eq!(names(&spread(&mesh, &service(), &[], &tried)), ["c3"]);
    let mut anybody = service();
    anybody.load_balancing.allow_unhealthy = true;
    assert_eq!(names(&spread(&mesh, &anybody, &[], &[])), ["c1", "c2", "c3"]);
}

#[rstest]
#[case::any(BalanceMode::Any, &[Scope::Zone], &["c1", "c2"])]
#[case::strict(BalanceMode::Strict, &[Scope::Zone], &["c1"])]
#[case::strict_nobody(BalanceMode::Strict, &[Scope::Zone, Scope::Subzone, Scope::Region, Scope::Node], &["c1"])]
#[case::failover(BalanceMode::Failover, &[Scope::Network, Scope::Region, Scope::Zone], &["c1"])]
fn locality(#[case] mode: BalanceMode, #[case] scopes: &[Scope], #[case] expected: &[&str]) {
    let mesh = mesh([endpoint("c1", "a"), endpoint("c2", "b")]);
    let mut service = service();
    service.load_balancing = LoadBalancing { scopes: scopes.to_vec(), mode, allow_unhealthy: false };
    assert_eq!(names(&spread(&mesh, &service, &[], &[])), expected);
}

#[test]
fn failover_goes_on_to_the_next_zone_and_strict_does_not() {
    let mut near = endpoint("c1", "a");
    near.health = Health::Unhealthy;
    let mesh = mesh([near, endpoint("c2", "b")]);
    let mut service = service();
    service.load_balancing =
        LoadBalancing { scopes: vec![Scope::Zone], mode: BalanceMode::Failover, allow_unhealthy: false };
    assert_eq!(names(&spread(&mesh, &service, &[], &[])), ["c2"]);
    service.load_balancing.mode = BalanceMode::Strict;
    assert!(spread(&mesh, &service, &[], &[]).is_empty());
}

#[test]
fn ports_and_families() {
    let mut named = endpoint("c1", "a");
    named.services = [(service().key, vec![PortMapping { service_port: 80, target_port: 9090 }])].into_iter().collect();
    let mesh = mesh([named]);
    let source = endpoint("web0", "a");
    let mut service = service();
    let mut rng = StdRng::seed_from_u64(1);
    let ask = |service: &Service, port, prefer_ipv6, rng: &mut StdRng| {
        let request =
            EndpointRequest { service, service_port: port, source: &source, prefer_ipv6, exact: None, exclude: &[] };
        choose(&mesh, &request, |_| 0, |_| false, rng).map(|chosen| (chosen.address.to_string(), chosen.port))
    };
    assert_eq!(ask(&service, 80, false, &mut rng), Ok(("10.244.1.1".into(), 9090)));
    assert_eq!(ask(&service, 80, true, &mut rng), Ok(("fd00::1".into(), 9090)));
    assert_eq!(ask(&service, 81, false, &mut rng), Err(Reason::PortUnresolved));
    service.ip_families = IpFamilies::V6Only;
    assert_eq!(ask(&service, 80, false, &mut rng), Ok(("fd00::1".into(), 9090)));
}

#[rstest]
#[case::none(&[], &["c1", "c2", "c3"])]
#[case::one(&["c1"], &["c2", "c3"])]
#[case::all_but_one(&["c1", "c2"], &["c3"])]
#[case::all_are_better_than_nobody(&["c1", "c2", "c3"], &["c1", "c2", "c3"])]
fn who_failed_lately_is_left_out_while_there_are_others(#[case] avoided: &[&str], #[case] expected: &[&str]) {
    for more in [0_u32, 40] {
        let mesh = mesh((1..=3 + more).map(|n| endpoint(&format!("c{n}"), "a")));
        let others: Vec<String> = (4..=3 + more).map(|n| format!("c{n}")).collect();
        let avoided: Vec<&str> = avoided.iter().copied().chain(others.iter().map(String::as_str)).collect();
        let all_avoided = avoided.len() as u32 == 3 + more;
        let counts = spread_avoiding(&mesh, &service(), &[], &[], &avoided);
        if all_avoided {
            assert_eq!(counts.len() as u32, 3 + more);
        } else {
            assert_eq!(names(&counts), expected, "of {}", 3 + more);
        }
    }
}

/// Failover knows health: the next zone serves while everybody in ours is left out; Strict never leaves its zone.
#[rstest]
#[case::near_is_well(BalanceMode::Failover, &[], &["c1", "c2"])]
#[case::one_near_is_well(BalanceMode::Failover, &["c1"], &["c2"])]
#[case::nobody_near_is_well(BalanceMode::Failover, &["c1", "c2"], &["c3", "c4"])]
#[case::only_one_far_is_well(BalanceMode::Failover, &["c1", "c2", "c4"], &["c3"])]
#[case::nobody_is_well(BalanceMode::Failover, &["c1", "c2", "c3", "c4"], &["c1", "c2"])]
#[case::strict(BalanceMode::Strict, &["c1"], &["c2"])]
#[case::strict_and_nobody_well(BalanceMode::Strict, &["c1", "c2"], &["c1", "c2"])]
fn nearness_looks_at_those_that_are_well_first(
    #[case] mode: BalanceMode,
    #[case] avoided: &[&str],
    #[case] expected: &[&str],
) {
    let mesh = mesh([endpoint("c1", "a"), endpoint("c2", "a"), endpoint("c3", "b"), endpoint("c4", "b")]);
    for scope in [Scope::Zone, Scope::Node] {
        let mut service = service();
        service.load_balancing = LoadBalancing { scopes: vec![scope], mode, allow_unhealthy: false };
        assert_eq!(names(&spread_avoiding(&mesh, &service, &[], &[], avoided)), expected, "{scope:?}");
    }
}
