//! What a connection asks of the mesh, and what one change costs it, must not grow with the mesh: the same questions to a
//! small and to a large one, in one run, compared by ratio. `make scale` prints the table for 100,000 workloads.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::hint::black_box;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use weft_model::authz::{Action, Basis, Connection, Group, Match, Mode, Policy, PolicyKey, Rule, Scope, evaluate};
use weft_model::mesh::{EndpointRequest, choose};
use weft_model::service::{AppProtocol, BalanceMode, LoadBalancing, Scope as Near, ServiceAddress, ServicePort};
use weft_model::workload::TunnelProtocol;
use weft_model::{Change, Mesh, NetworkAddress, Resource, Service, ServiceKey, Uid, Workload};

/// Workloads of one service, at most: the rest of a mesh has services of ten.
const LARGEST_SERVICE: usize = 10_000;
/// Questions of one measurement.
const ASKED: u32 = 500;
/// Measurements; the quickest counts, because other work on the machine only adds.
const ROUNDS: usize = 7;

fn address(number: usize) -> IpAddr {
    IpAddr::from(u32::try_from(0x0a00_0000 + number).unwrap().to_be_bytes())
}

fn key(group: usize) -> ServiceKey {
    ServiceKey::new("shop", &format!("s{group}.shop.svc.cluster.local"))
}

fn workload(number: usize) -> Workload {
    let mut workload = Workload::named("Kubernetes", "shop", &format!("w{number}"));
    workload.addresses = vec![address(number)];
    workload.tunnel = TunnelProtocol::Hbone;
    workload.locality.zone = format!("zone-{}", number % 3).into();
    let group = if number < LARGEST_SERVICE { 0 } else { number / 10 };
    workload.services = [(key(group), vec![])].into_iter().collect();
    workload
}

fn service(group: usize) -> Service {
    let mut service = Service::named("shop", &format!("s{group}"), &key(group).hostname);
    let vip = IpAddr::from([240, 0, u8::try_from(group / 256 % 256).unwrap(), u8::try_from(group % 256).unwrap()]);
    service.addresses = vec![ServiceAddress::single("", vip)];
    service.ports = vec![ServicePort { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }];
    service
}

/// A mesh of so many workloads, their services, and a policy for all of them.
fn mesh(size: usize) -> Mesh {
    let workloads = (0..size).map(|number| Resource::Workload(workload(number)));
    let groups = std::iter::once(0).chain(LARGEST_SERVICE / 10..size.max(LARGEST_SERVICE) / 10);
    let services = groups.map(|group| Resource::Service(service(group)));
    let rules = vec![Rule { matches: vec![Match { destination_ports: vec![8080], ..Match::default() }] }];
    let policy = Policy {
        key: PolicyKey::new("shop", "all"),
        scope: Scope::Namespace,
        action: Action::Allow,
        mode: Mode::Enforce,
        groups: vec![Group { rules }],
    };
    let all = workloads.chain(services).chain([Resource::Policy(policy)]);
    Mesh::default().apply(all.map(Change::Upsert).collect())
}

/// What is asked, and the time that one question takes.
fn questions(mesh: &Mesh) -> Vec<(&'static str, Duration)> {
    let mut rng = StdRng::seed_from_u64(1);
    let source = mesh.workload(&Uid::of_pod("Kubernetes", "shop", "w1")).unwrap().clone();
    let any = mesh.service(&key(0)).unwrap().clone();
    let mut near = (*any).clone();
    near.load_balancing = LoadBalancing {
        scopes: vec![Near::Network, Near::Region, Near::Zone],
        mode: BalanceMode::Failover,
        allow_unhealthy: false,
    };
    let mut ask_for = |service: &Service| {
        let request = EndpointRequest {
            service,
            service_port: 80,
            source: &source,
            prefer_ipv6: false,
            exact: None,
            exclude: &[],
        };
        seen(choose(mesh, &request, |_| 0, |_| false, &mut rng));
    };
    let vip = NetworkAddress::new("", service(0).addresses[0].prefix.addr());
    let pod = NetworkAddress::new("", address(7));
    let connection = Connection { identity: None, source: address(9), destination: "10.0.0.1:8080".parse().unwrap() };
    vec![
        ("an endpoint of the largest service", time(|| ask_for(&any))),
        ("a near endpoint of the largest service", time(|| ask_for(&near))),
        ("the service at an address", time(|| seen(mesh.service_at(&vip, "shop")))),
        ("the workload at an address", time(|| seen(mesh.workload_at(&pod)))),
        ("a verdict", time(|| seen(evaluate(mesh, &source, &connection)))),
        ("whether a change concerns a workload", time(|| seen(Basis::of(mesh, &source)))),
        ("a changed workload", time(|| seen(mesh.apply(vec![Change::Upsert(Resource::Workload(workload(7)))])))),
    ]
}

/// Keeps the compiler from leaving the question out.
fn seen<T>(answer: T) {
    let _answer = black_box(answer);
}

fn time(mut ask: impl FnMut()) -> Duration {
    let mut round = || {
        let begin = Instant::now();
        (0..ASKED).for_each(|_| ask());
        begin.elapsed() / ASKED
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or_default()
}

/// Each question with its time in the small mesh, in the large one, and their ratio.
fn compare(small: usize, large: usize) -> Vec<(&'static str, Duration, Duration, f64)> {
    let (few, many) = (questions(&mesh(small)), questions(&mesh(large)));
    let ratio = |few: Duration, many: Duration| many.as_secs_f64() / few.as_secs_f64().max(1e-9);
    few.into_iter().zip(many).map(|((name, few), (_, many))| (name, few, many, ratio(few, many))).collect()
}

fn table(rows: &[(&str, Duration, Duration, f64)], (small, large): (usize, usize)) -> String {
    let mut text = format!("{:42}{small:>12}{large:>12}{:>8}\n", "", "ratio");
    for (name, few, many, ratio) in rows {
        text += &format!("{name:42}{few:>12.2?}{many:>12.2?}{ratio:>8.2}\n");
    }
    text
}

/// 12,000 against 10. Caches alone make a factor of two or three; a walk over the workloads would make hundreds.
#[test]
fn no_question_costs_by_the_size_of_the_mesh() {
    const GENEROUS: f64 = 15.0;
    let rows = compare(10, 12_000);
    let bad = rows.iter().any(|(.., ratio)| *ratio > GENEROUS);
    assert!(!bad, "{}", table(&rows, (10, 12_000)));
}

#[test]
#[ignore = "make scale: a measurement"]
fn the_table_for_a_hundred_thousand() {
    let rows = compare(10, 100_000);
    let _ = std::io::stdout().write_all(table(&rows, (10, 100_000)).as_bytes());
}
