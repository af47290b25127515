//! The inbound table: one case for each step of `docs/hbone.md`, "What a server accepts", and for each of its exceptions.

use std::net::SocketAddr;

use rstest::rstest;
use weft_hbone::Authority;
use weft_model::authz::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, Scope, StringMatch};
use weft_model::change::{Change, Resource};
use weft_model::mesh::Mesh;
use weft_model::service::{AppProtocol, Service, ServiceAddress, ServiceKey, ServicePort};
use weft_model::spiffe::SpiffeId;
use weft_model::workload::{
    ApplicationTunnel, GatewayAddress, GatewayDestination, PortMapping, TunnelProtocol, Uid, Workload,
};

use super::admit::{Admission, Caller, Denied, admit_local, admit_plaintext, admit_tunnel};

struct World {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    policies: Vec<Policy>,
    caller: Caller,
}

impl World {
    /// `cart` (10.244.2.1, fd00::1) behind service `cart` 10.96.0.10:80 -> 8080; the caller is `web`.
    fn new() -> Self {
        let caller = Caller {
            client: "10.244.1.1:40000".parse().unwrap(),
            arrived_at: "10.244.2.1".parse().unwrap(),
            identity: Some(SpiffeId::new("cluster.local", "shop", "web").unwrap()),
        };
        let services = vec![service("cart", "10.96.0.10"), service("other", "10.96.0.20")];
        Self {
            workloads: vec![pod("cart", "10.244.2.1", &["cart"]), pod("other", "10.244.2.2", &["other"])],
            services,
            policies: Vec::new(),
            caller,
        }
    }

    fn cart(&mut self) -> &mut Workload {
        &mut self.workloads[0]
    }

    fn mesh(&self) -> Mesh {
        let workloads = self.workloads.iter().cloned().map(Resource::Workload);
        let services = self.services.iter().cloned().map(Resource::Service);
        let policies = self.policies.iter().cloned().map(Resource::Policy);
        Mesh::default().apply(workloads.chain(services).chain(policies).map(Change::Upsert).collect())
    }

    fn tunnel(&self, authority: &str) -> Result<Admission, Denied> {
        let mesh = self.mesh();
        let cart = mesh.workload(&Uid::of_pod("Kubernetes", "shop", "cart")).unwrap();
        admit_tunnel(&mesh, cart, &authority.parse::<Authority>().unwrap(), &self.caller)
    }

    fn plaintext(&self, original: &str) -> Result<Admission, Denied> {
        let mesh = self.mesh();
        let cart = mesh.workload(&Uid::of_pod("Kubernetes", "shop", "cart")).unwrap();
        admit_plaintext(&mesh, cart, self.caller.client, original.parse().unwrap())
    }
}

fn pod(name: &str, address: &str, services: &[&str]) -> Workload {
    let mut workload = Workload::named("Kubernetes", "shop", name);
    workload.service_account = name.into();
    workload.addresses = vec![address.parse().unwrap()];
    workload.tunnel = TunnelProtocol::Hbone;
    workload.services = services.iter().map(|name| (key(name), Vec::new())).collect();
    workload
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", &format!("{name}.shop.svc.cluster.local"))
}

fn service(name: &str, vip: &str) -> Service {
    let mut service = Service::named("shop", name, &key(name).hostname);
    service.addresses = vec![ServiceAddress::single("", vip.parse().unwrap())];
    service.ports = vec![ServicePort { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }];
    service
}

fn behind_cart() -> Option<GatewayAddress> {
    Some(GatewayAddress { destination: GatewayDestination::Hostname(key("cart")), hbone_port: 15008 })
}

fn policy(action: Action, found: Match) -> Policy {
    let groups = vec![Group { rules: vec![Rule { matches: vec![found] }] }];
    Policy { key: PolicyKey::new("shop", "p"), scope: Scope::Namespace, action, mode: Mode::Enforce, groups }
}

fn strict() -> Policy {
    policy(Action::Deny, Match { not_principals: vec![StringMatch::Presence], ..Match::default() })
}

fn deny_port(port: u16) -> Policy {
    policy(Action::Deny, Match { destination_ports: vec![port], ..Match::default() })
}

fn allow(account: &str) -> Policy {
    let principals = vec![StringMatch::Exact(format!("cluster.local/ns/shop/sa/{account}").into())];
    policy(Action::Allow, Match { principals, ..Match::default() })
}

fn said(outcome: &Result<Admission, Denied>) -> String {
    match outcome {
        Ok(admission) => admission.application.to_string(),
        Err(denied) => format!("{} {}", denied.reason.status(), denied.reason),
    }
}

type Change1 = fn(&mut World);
const NOTHING: Change1 = |_| {};

#[rstest]
// Destination: the pod's own addresses.
#[case::own_address(NOTHING, "10.244.2.1:8080", "10.244.2.1:8080")]
#[case::own_address_mapped(NOTHING, "[::ffff:10.244.2.1]:8080", "10.244.2.1:8080")]
#[case::own_address_of_the_other_family(|w: &mut World| w.cart().addresses.push("fd00::1".parse().unwrap()), "[fd00::1]:8080", "10.244.2.1:8080")]
#[case::ipv6(|w: &mut World| w.caller.arrived_at = "fd00::1".parse().unwrap(), "[fd00::1]:8080", "[fd00::1]:8080")]
#[case::another_pod(NOTHING, "10.244.2.2:8080", "400 wrong-destination")]
#[case::own_vip(NOTHING, "10.96.0.10:80", "400 wrong-destination")]
#[case::loopback(NOTHING, "127.0.0.1:8080", "400 wrong-destination")]
#[case::nobody(NOTHING, "192.0.2.1:80", "400 wrong-destination")]
// Destination: by host name.
#[case::own_service(NOTHING, "cart.shop.svc.cluster.local:80", "10.244.2.1:8080")]
#[case::own_named_port(|w: &mut World| w.cart().services.values_mut().for_each(|p| *p = vec![PortMapping { service_port: 80, target_port: 9090 }]), "cart.shop.svc.cluster.local:80", "10.244.2.1:9090")]
#[case::named_port_without_mapping(|w: &mut World| w.services[0].ports[0].target_port = 0, "cart.shop.svc.cluster.local:80", "503 port-unresolved")]
#[case::unknown_port(NOTHING, "cart.shop.svc.cluster.local:81", "503 port-unresolved")]
#[case::anothers_service(NOTHING, "other.shop.svc.cluster.local:80", "400 wrong-destination")]
#[case::unknown_service(NOTHING, "nobody.shop.svc.cluster.local:80", "400 wrong-destination")]
#[case::own_namespace_first(|w: &mut World| { let mut twin = w.services[0].clone(); twin.key.namespace = "aaa".into(); twin.ports[0].target_port = 1; w.services.push(twin) }, "cart.shop.svc.cluster.local:80", "10.244.2.1:8080")]
// Destination: this workload is the waypoint.
#[case::waypoint_of_a_service(|w: &mut World| w.services[1].waypoint = behind_cart(), "10.96.0.20:80", "10.244.2.1:80")]
#[case::waypoint_of_a_service_by_name(|w: &mut World| w.services[1].waypoint = behind_cart(), "other.shop.svc.cluster.local:80", "10.244.2.1:80")]
#[case::waypoint_of_a_workload(|w: &mut World| w.workloads[1].waypoint = behind_cart(), "10.244.2.2:8080", "10.244.2.1:8080")]
#[case::somebody_elses_waypoint(|w: &mut World| w.services[0].waypoint = behind_cart(), "10.96.0.20:80", "400 wrong-destination")]
// A proxy in front of the application.
#[case::application_tunnel(|w: &mut World| w.cart().application_tunnel = Some(ApplicationTunnel { proxy_protocol: false, port: 15088 }), "10.96.0.99:80", "10.244.2.1:15088")]
#[case::application_tunnel_onto_us(|w: &mut World| w.cart().application_tunnel = Some(ApplicationTunnel { proxy_protocol: false, port: 15008 }), "10.244.2.1:80", "503 reserved-port")]
// Ports of the mesh, after resolution.
#[case::reserved_15001(NOTHING, "10.244.2.1:15001", "503 reserved-port")]
#[case::reserved_15006(NOTHING, "10.244.2.1:15006", "503 reserved-port")]
#[case::reserved_15008(NOTHING, "10.244.2.1:15008", "503 reserved-port")]
#[case::reserved_by_mapping(|w: &mut World| w.services[0].ports[0].target_port = 15008, "cart.shop.svc.cluster.local:80", "503 reserved-port")]
#[case::reserved_number_of_a_service(|w: &mut World| w.services[0].ports[0].service_port = 15008, "cart.shop.svc.cluster.local:15008", "10.244.2.1:8080")]
// Identity.
#[case::other_trust_domain(|w: &mut World| w.caller.identity = Some(SpiffeId::new("evil.example", "shop", "web").unwrap()), "10.244.2.1:8080", "401 trust-domain-mismatch")]
#[case::no_identity(|w: &mut World| w.caller.identity = None, "10.244.2.1:8080", "401 trust-domain-mismatch")]
// Policy, with the resolved port.
#[case::allowed(|w: &mut World| w.policies = vec![allow("web")], "10.244.2.1:8080", "10.244.2.1:8080")]
#[case::not_allowed(|w: &mut World| w.policies = vec![allow("ops")], "10.244.2.1:8080", "401 policy-not-allowed")]
#[case::denied_port(|w: &mut World| w.policies = vec![deny_port(8080)], "cart.shop.svc.cluster.local:80", "401 policy-denied")]
#[case::service_port_is_not_the_port(|w: &mut World| w.policies = vec![deny_port(80)], "cart.shop.svc.cluster.local:80", "10.244.2.1:8080")]
#[case::unknown_policy(|w: &mut World| w.cart().policies = vec![PolicyKey::new("shop", "lost")], "10.244.2.1:8080", "401 policy-unknown")]
#[case::strict_lets_mtls_in(|w: &mut World| w.policies = vec![strict()], "10.244.2.1:8080", "10.244.2.1:8080")]
fn tunnels(#[case] change: Change1, #[case] authority: &str, #[case] expected: &str) {
    let mut world = World::new();
    change(&mut world);
    assert_eq!(said(&world.tunnel(authority)), expected);
}

#[rstest]
#[case::permissive(NOTHING, "10.244.2.1:8080", "10.244.2.1:8080")]
#[case::mapped(NOTHING, "[::ffff:10.244.2.1]:8080", "10.244.2.1:8080")]
#[case::ipv6(NOTHING, "[fd00::1]:8080", "[fd00::1]:8080")]
#[case::reserved(NOTHING, "10.244.2.1:15006", "503 reserved-port")]
#[case::strict(|w: &mut World| w.policies = vec![strict()], "10.244.2.1:8080", "401 mtls-required")]
#[case::allow_by_identity(|w: &mut World| w.policies = vec![allow("web")], "10.244.2.1:8080", "401 policy-not-allowed")]
#[case::denied_port(|w: &mut World| w.policies = vec![deny_port(8080)], "10.244.2.1:8080", "401 policy-denied")]
#[case::other_port(|w: &mut World| w.policies = vec![deny_port(8080)], "10.244.2.1:8081", "10.244.2.1:8081")]
#[case::application_tunnels_are_for_tunnels(|w: &mut World| w.cart().application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port: 15088 }), "10.244.2.1:80", "10.244.2.1:80")]
fn plaintext(#[case] change: Change1, #[case] original: &str, #[case] expected: &str) {
    let mut world = World::new();
    change(&mut world);
    assert_eq!(said(&world.plaintext(original)), expected);
}

#[test]
fn the_short_way_meets_the_same_policy() {
    let mut world = World::new();
    let target: SocketAddr = "10.244.2.1:8080".parse().unwrap();
    let ask = |world: &World| {
        let mesh = world.mesh();
        let cart = mesh.workload(&Uid::of_pod("Kubernetes", "shop", "cart")).unwrap();
        said(&admit_local(&mesh, cart, &world.caller, target))
    };
    world.policies = vec![allow("web")];
    assert_eq!(ask(&world), "10.244.2.1:8080");
    world.policies = vec![allow("ops")];
    assert_eq!(ask(&world), "401 policy-not-allowed");
}

#[test]
fn shadowed_policies_are_reported_and_do_not_count() {
    let mut world = World::new();
    world.policies = vec![Policy { mode: Mode::Shadow, ..deny_port(8080) }];
    let admission = world.tunnel("10.244.2.1:8080").unwrap();
    assert_eq!(admission.shadow.unwrap().policy, PolicyKey::new("shop", "p"));
    assert_eq!(world.tunnel("10.244.2.1:8081").unwrap().shadow, None);
}

#[test]
fn an_admission_says_what_was_checked() {
    let mut world = World::new();
    world.policies = vec![allow("web")];
    let admission = world.tunnel("cart.shop.svc.cluster.local:80").unwrap();
    assert_eq!(admission.permit.policy(), Some(&PolicyKey::new("shop", "p")));
    assert_eq!(admission.connection.destination, "10.244.2.1:8080".parse().unwrap());
    assert_eq!(admission.connection.source, world.caller.client.ip());
    assert_eq!(admission.service.unwrap().key, key("cart"));
}

#[test]
fn a_proxy_in_front_is_told_what_was_asked_for() {
    let mut world = World::new();
    world.cart().application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port: 15088 });
    let told = |world: &World, authority: &str| world.tunnel(authority).unwrap().announce.unwrap();
    let announcement = told(&world, "10.96.0.20:80");
    assert_eq!(announcement.source, world.caller.client);
    assert_eq!(announcement.destination, "10.96.0.20:80".parse().unwrap());
    assert_eq!(announcement.identity, world.caller.identity);
    assert_eq!(told(&world, "10.244.2.1:80").destination, "10.244.2.1:80".parse().unwrap());
    world.services[1].waypoint = behind_cart();
    assert_eq!(told(&world, "other.shop.svc.cluster.local:80").destination, "10.96.0.20:80".parse().unwrap());
}
