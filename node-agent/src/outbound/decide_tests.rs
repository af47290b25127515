//! The outbound table: one case for each row of the table in `decide.rs` and for each exception.

use std::cell::RefCell;
use std::net::IpAddr;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rstest::rstest;
use weft_model::address::{NetworkAddress, OriginalDst};
use weft_model::change::{Change, Resource};
use weft_model::mesh::Mesh;
use weft_model::service::{AppProtocol, BalanceMode, Service, ServiceAddress, ServiceKey, ServicePort};
use weft_model::spiffe::SpiffeId;
use weft_model::workload::{GatewayAddress, GatewayDestination, Health, PortMapping, TunnelProtocol, Uid, Workload};

use super::decide::{Decision, Question, Surroundings, decide};

/// A small mesh that a case changes before it asks.
struct World {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    served: Vec<&'static str>,
    exclude: Vec<&'static str>,
    source: &'static str,
}

impl World {
    /// `web` (the client), `cart1`, `cart2` behind service `cart` 10.96.0.10:80 -> 8080, `old` outside the mesh behind
    /// `old` 10.96.0.20, a waypoint `way` behind `way` 10.96.0.30.
    fn new() -> Self {
        let workloads = vec![
            pod("web", "10.244.1.1", TunnelProtocol::Hbone, &[]),
            pod("cart1", "10.244.2.1", TunnelProtocol::Hbone, &["cart"]),
            pod("old1", "10.244.2.9", TunnelProtocol::None, &["old"]),
            pod("way1", "10.244.2.7", TunnelProtocol::Hbone, &["way"]),
        ];
        let services =
            vec![service("cart", "10.96.0.10", 80, 8080), service("old", "10.96.0.20", 80, 80), waypoint_service()];
        Self { workloads, services, served: Vec::new(), exclude: Vec::new(), source: "web" }
    }

    fn workload(&mut self, name: &str) -> &mut Workload {
        self.workloads.iter_mut().find(|workload| &*workload.name == name).unwrap()
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.services.iter_mut().find(|service| &*service.name == name).unwrap()
    }

    fn decide(&self, to: &str) -> Decision {
        let workloads = self.workloads.iter().cloned().map(|workload| Change::Upsert(Resource::Workload(workload)));
        let services = self.services.iter().cloned().map(|service| Change::Upsert(Resource::Service(service)));
        let mesh = Mesh::default().apply(workloads.chain(services).collect());
        let source = mesh.workload(&uid(self.source)).unwrap().clone();
        let exclude: Vec<Uid> = self.exclude.iter().map(|name| uid(name)).collect();
        let original = OriginalDst(to.parse().unwrap());
        let question = Question { mesh: &mesh, source: &source, original, exclude: &exclude };
        decide(&question, self, &mut StdRng::seed_from_u64(1))
    }

    fn said(&self, to: &str) -> String {
        said(&self.decide(to))
    }
}

impl Surroundings for World {
    fn outstanding(&self, _: &Uid) -> u32 {
        0
    }

    fn serves(&self, workload: &Workload, address: IpAddr) -> bool {
        self.served.contains(&&*workload.name) && workload.addresses.contains(&address)
    }
}

fn uid(name: &str) -> Uid {
    Uid::of_pod("Kubernetes", "shop", name)
}

fn host(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

fn pod(name: &str, address: &str, tunnel: TunnelProtocol, services: &[&str]) -> Workload {
    let mut workload = Workload::named("Kubernetes", "shop", name);
    workload.service_account = name.trim_end_matches(char::is_numeric).into();
    workload.addresses = vec![address.parse().unwrap()];
    workload.tunnel = tunnel;
    workload.services = services.iter().map(|name| (ServiceKey::new("shop", &host(name)), Vec::new())).collect();
    workload
}

fn service(name: &str, vip: &str, port: u16, target: u16) -> Service {
    let mut service = Service::named("shop", name, &host(name));
    service.addresses = vec![ServiceAddress::single("", vip.parse().unwrap())];
    service.ports = vec![ServicePort { service_port: port, target_port: target, app_protocol: AppProtocol::Unknown }];
    service
}

fn waypoint_service() -> Service {
    service("way", "10.96.0.30", 15008, 15008)
}

fn by_name(name: &str) -> Option<GatewayAddress> {
    let destination = GatewayDestination::Hostname(ServiceKey::new("shop", &host(name)));
    Some(GatewayAddress { destination, hbone_port: 15008 })
}

fn by_address(address: &str) -> Option<GatewayAddress> {
    let destination = GatewayDestination::Address(NetworkAddress::new("", address.parse::<IpAddr>().unwrap()));
    Some(GatewayAddress { destination, hbone_port: 15008 })
}

fn said(decision: &Decision) -> String {
    match decision {
        Decision::Passthrough { to } => format!("passthrough {to}"),
        Decision::Plain(target) => format!("plain {}", target.to),
        Decision::Local(target) => format!("local {} {}", target.workload.name, target.to),
        Decision::Tunnel(plan) => {
            let accounts: Vec<&str> = plan.peers.iter().map(SpiffeId::service_account).collect();
            format!("tunnel {} for {} as {}", plan.next_hop.0, plan.authority, accounts.join("+"))
        }
        Decision::Refuse(reason) => format!("refuse {reason}"),
    }
}

type Change1 = fn(&mut World);
const NOTHING: Change1 = |_| {};

#[rstest]
// Row 0: our own listeners, and only on loopback.
#[case::loopback_outbound(NOTHING, "127.0.0.1:15001", "refuse reserved-port")]
#[case::loopback_inbound(NOTHING, "127.0.0.9:15006", "refuse reserved-port")]
#[case::loopback_hbone_v6(NOTHING, "[::1]:15008", "refuse reserved-port")]
#[case::loopback_mapped(NOTHING, "[::ffff:127.0.0.1]:15001", "refuse reserved-port")]
#[case::loopback_other_port(NOTHING, "127.0.0.1:8080", "passthrough 127.0.0.1:8080")]
#[case::reserved_port_elsewhere(NOTHING, "192.0.2.1:15008", "passthrough 192.0.2.1:15008")]
// Row 3: nothing known.
#[case::unknown(NOTHING, "192.0.2.1:443", "passthrough 192.0.2.1:443")]
#[case::unknown_v6(NOTHING, "[2001:db8::1]:443", "passthrough [2001:db8::1]:443")]
#[case::host_network_pods_are_the_node(|w: &mut World| w.workload("cart1").host_network = true, "10.244.2.1:80", "passthrough 10.244.2.1:80")]
#[case::other_networks_addresses_mean_nothing(|w: &mut World| w.workload("cart1").network = "far".into(), "10.244.2.1:80", "passthrough 10.244.2.1:80")]
// Row 3b: known, not usable.
#[case::no_endpoint(|w: &mut World| w.workloads.retain(|p| &*p.name != "cart1"), "10.96.0.10:80", "refuse no-healthy-endpoint")]
#[case::unhealthy(|w: &mut World| w.workload("cart1").health = Health::Unhealthy, "10.96.0.10:80", "refuse no-healthy-endpoint")]
#[case::unhealthy_but_allowed(|w: &mut World| { w.workload("cart1").health = Health::Unhealthy; w.service("cart").load_balancing.allow_unhealthy = true }, "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::no_such_port(NOTHING, "10.96.0.10:81", "refuse port-unresolved")]
#[case::tried_already(|w: &mut World| w.exclude = vec!["cart1"], "10.96.0.10:80", "refuse no-healthy-endpoint")]
#[case::only_a_host_name(|w: &mut World| { w.workload("cart1").addresses.clear(); w.workload("cart1").hostname = "example.com".into() }, "10.96.0.10:80", "refuse no-healthy-endpoint")]
#[case::passthrough_mode_without_endpoint(|w: &mut World| w.service("cart").load_balancing.mode = BalanceMode::Passthrough, "10.96.0.10:80", "passthrough 10.96.0.10:80")]
#[case::passthrough_mode_with_endpoint(|w: &mut World| { let s = w.service("cart"); s.load_balancing.mode = BalanceMode::Passthrough; s.addresses.push(ServiceAddress::single("", "10.244.2.1".parse().unwrap())) }, "10.244.2.1:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
// Row 4: another network.
#[case::endpoint_elsewhere(|w: &mut World| w.workload("cart1").network = "far".into(), "10.96.0.10:80", "refuse network-unreachable")]
#[case::endpoint_elsewhere_and_sick(|w: &mut World| { let p = w.workload("cart1"); p.network = "far".into(); p.health = Health::Unhealthy }, "10.96.0.10:80", "refuse no-healthy-endpoint")]
#[case::one_here_one_elsewhere(|w: &mut World| { let mut far = w.workload("cart1").clone(); far.uid = uid("cart3"); far.network = "far".into(); w.workloads.push(far) }, "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
// Row 6: HBONE.
#[case::vip(NOTHING, "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::vip_mapped(NOTHING, "[::ffff:10.96.0.10]:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::named_port(|w: &mut World| w.workload("cart1").services.values_mut().for_each(|ports| *ports = vec![PortMapping { service_port: 80, target_port: 9090 }]), "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:9090 as cart")]
#[case::pod_ip_and_headless(NOTHING, "10.244.2.1:9999", "tunnel 10.244.2.1:15008 for 10.244.2.1:9999 as cart")]
#[case::pod_ip_is_not_balanced(|w: &mut World| w.workload("cart1").health = Health::Unhealthy, "10.244.2.1:9999", "tunnel 10.244.2.1:15008 for 10.244.2.1:9999 as cart")]
#[case::service_names_are_accepted_too(|w: &mut World| w.service("cart").subject_alt_names = vec![SpiffeId::new("cluster.local", "shop", "alias").unwrap()], "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as alias+cart")]
#[case::but_not_for_the_pod_itself(|w: &mut World| w.service("cart").subject_alt_names = vec![SpiffeId::new("cluster.local", "shop", "alias").unwrap()], "10.244.2.1:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:80 as cart")]
#[case::an_identity_that_cannot_be(|w: &mut World| w.workload("cart1").service_account = "a/b".into(), "10.96.0.10:80", "refuse peer-identity-mismatch")]
#[case::ipv6_vip(|w: &mut World| { w.workload("cart1").addresses.push("fd00::1".parse().unwrap()); w.service("cart").addresses.push(ServiceAddress::single("", "fd96::10".parse().unwrap())) }, "[fd96::10]:80", "tunnel [fd00::1]:15008 for [fd00::1]:8080 as cart")]
#[case::ipv6_vip_on_an_ipv4_pod(|w: &mut World| w.service("cart").addresses.push(ServiceAddress::single("", "fd96::10".parse().unwrap())), "[fd96::10]:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
// Row 7: an endpoint outside the mesh.
#[case::plain_service(NOTHING, "10.96.0.20:80", "plain 10.244.2.9:80")]
#[case::plain_pod(NOTHING, "10.244.2.9:5432", "plain 10.244.2.9:5432")]
#[case::plain_on_this_node(|w: &mut World| w.served = vec!["old1"], "10.244.2.9:5432", "plain 10.244.2.9:5432")]
// The short way.
#[case::same_node(|w: &mut World| w.served = vec!["cart1"], "10.96.0.10:80", "local cart1 10.244.2.1:8080")]
#[case::same_node_pod_ip(|w: &mut World| w.served = vec!["cart1"], "10.244.2.1:7000", "local cart1 10.244.2.1:7000")]
#[case::own_service(|w: &mut World| { w.source = "cart1"; w.served = vec!["cart1"] }, "10.96.0.10:80", "local cart1 10.244.2.1:8080")]
#[case::native_tunnel_wants_tls(|w: &mut World| { w.served = vec!["cart1"]; w.workload("cart1").native_tunnel = true }, "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
// Row 2: a service behind a waypoint.
#[case::service_waypoint(|w: &mut World| w.service("cart").waypoint = by_name("way"), "10.96.0.10:80", "tunnel 10.244.2.7:15008 for 10.96.0.10:80 as way")]
#[case::service_waypoint_by_vip(|w: &mut World| w.service("cart").waypoint = by_address("10.96.0.30"), "10.96.0.10:80", "tunnel 10.244.2.7:15008 for 10.96.0.10:80 as way")]
#[case::service_waypoint_by_pod(|w: &mut World| w.service("cart").waypoint = by_address("10.244.2.7"), "10.96.0.10:80", "tunnel 10.244.2.7:15008 for 10.96.0.10:80 as way")]
#[case::waypoint_before_the_short_way(|w: &mut World| { w.service("cart").waypoint = by_name("way"); w.served = vec!["cart1"] }, "10.96.0.10:80", "tunnel 10.244.2.7:15008 for 10.96.0.10:80 as way")]
#[case::waypoint_decides_about_ports(|w: &mut World| w.service("cart").waypoint = by_name("way"), "10.96.0.10:81", "tunnel 10.244.2.7:15008 for 10.96.0.10:81 as way")]
#[case::the_waypoint_itself(|w: &mut World| { w.service("cart").waypoint = by_name("way"); w.source = "way1" }, "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::the_waypoint_itself_by_pod(|w: &mut World| { w.service("cart").waypoint = by_address("10.244.2.7"); w.source = "way1" }, "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::waypoint_without_endpoint(|w: &mut World| { w.service("cart").waypoint = by_name("way"); w.workload("way1").health = Health::Unhealthy }, "10.96.0.10:80", "refuse waypoint-unavailable")]
#[case::waypoint_unknown(|w: &mut World| w.service("cart").waypoint = by_name("nobody"), "10.96.0.10:80", "refuse waypoint-unavailable")]
#[case::waypoint_address_unknown(|w: &mut World| w.service("cart").waypoint = by_address("10.1.1.1"), "10.96.0.10:80", "refuse waypoint-unavailable")]
#[case::waypoint_elsewhere(|w: &mut World| { w.service("cart").waypoint = by_name("way"); w.workload("way1").network = "far".into() }, "10.96.0.10:80", "refuse waypoint-unavailable")]
#[case::waypoint_tried_already(|w: &mut World| { w.service("cart").waypoint = by_address("10.244.2.7"); w.exclude = vec!["way1"] }, "10.96.0.10:80", "refuse waypoint-unavailable")]
// Row 5: a workload behind a waypoint, when the workload itself is asked for.
#[case::workload_waypoint(|w: &mut World| w.workload("cart1").waypoint = by_name("way"), "10.244.2.1:8080", "tunnel 10.244.2.7:15008 for 10.244.2.1:8080 as way")]
#[case::workload_waypoint_not_for_the_service(|w: &mut World| w.workload("cart1").waypoint = by_name("way"), "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::workload_waypoint_itself(|w: &mut World| { w.workload("cart1").waypoint = by_name("way"); w.source = "way1" }, "10.244.2.1:8080", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::workload_waypoint_gone(|w: &mut World| w.workload("cart1").waypoint = by_name("nobody"), "10.244.2.1:8080", "refuse waypoint-unavailable")]
#[case::plain_workload_waypoint(|w: &mut World| w.workload("old1").waypoint = by_name("way"), "10.244.2.9:80", "tunnel 10.244.2.7:15008 for 10.244.2.9:80 as way")]
// Look-up order.
#[case::vip_wins_over_pod(|w: &mut World| w.workload("old1").addresses = vec!["10.96.0.10".parse().unwrap()], "10.96.0.10:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::pod_wins_over_range(|w: &mut World| w.service("cart").addresses = vec![range("10.244.0.0/16")], "10.244.2.9:80", "plain 10.244.2.9:80")]
#[case::range(|w: &mut World| w.service("cart").addresses = vec![range("203.0.113.0/24")], "203.0.113.7:80", "tunnel 10.244.2.1:15008 for 10.244.2.1:8080 as cart")]
#[case::invisible_service(|w: &mut World| { let s = w.service("cart"); s.namespace_only = true; s.key.namespace = "ops".into() }, "10.96.0.10:80", "passthrough 10.96.0.10:80")]
fn table(#[case] change: Change1, #[case] to: &str, #[case] expected: &str) {
    let mut world = World::new();
    change(&mut world);
    assert_eq!(world.said(to), expected);
}

fn range(prefix: &str) -> ServiceAddress {
    ServiceAddress { network: "".into(), prefix: prefix.parse().unwrap() }
}

#[test]
fn the_next_endpoint_after_each_failure_until_none_is_left() {
    let mut world = World::new();
    world.workloads.push(pod("cart2", "10.244.2.2", TunnelProtocol::Hbone, &["cart"]));
    let tried = RefCell::new(Vec::new());
    for _ in 0..2 {
        let decision = world.decide("10.96.0.10:80");
        let name = decision.workload().unwrap().name.to_string();
        assert_eq!(decision.endpoint(), Some(&uid(&name)));
        world.exclude.push(if name == "cart1" { "cart1" } else { "cart2" });
        tried.borrow_mut().push(name);
    }
    tried.borrow_mut().sort();
    assert_eq!(*tried.borrow(), ["cart1", "cart2"]);
    assert_eq!(world.said("10.96.0.10:80"), "refuse no-healthy-endpoint");
}

#[test]
fn who_named_one_pod_gets_that_one_or_nothing() {
    let world = World::new();
    assert_eq!(world.decide("10.244.2.1:80").endpoint(), None);
    assert_eq!(world.decide("10.244.2.9:80").endpoint(), None);
    assert_eq!(world.decide("192.0.2.1:80").endpoint(), None);
}

#[test]
fn equal_sets_of_peers_are_equal_keys() {
    let mut world = World::new();
    let name = |account| SpiffeId::new("cluster.local", "shop", account).unwrap();
    let peers = |world: &World| match world.decide("10.96.0.10:80") {
        Decision::Tunnel(plan) => plan.peers,
        other => panic!("{other:?}"),
    };
    world.service("cart").subject_alt_names = vec![name("b"), name("a"), name("cart")];
    let one = peers(&world);
    world.service("cart").subject_alt_names = vec![name("a"), name("b"), name("b")];
    assert_eq!(peers(&world), one);
}
