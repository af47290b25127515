//! What people read of a small mesh.

use crate::authz::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, Scope, StringMatch};
use crate::change::{Change, Resource};
use crate::mesh::Mesh;
use crate::service::{AppProtocol, Service, ServiceAddress, ServicePort};
use crate::view::{pods, policies, services};
use crate::workload::{TunnelProtocol, Workload};

fn shop() -> Mesh {
    let mut service = Service::named("shop", "cart", "cart.shop.svc.cluster.local");
    service.addresses = vec![ServiceAddress::single("", "10.96.0.7".parse().unwrap())];
    service.ports = vec![ServicePort { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Http11 }];
    let mut cart = Workload::named("Kubernetes", "shop", "cart-1");
    cart.addresses = vec!["10.244.1.3".parse().unwrap()];
    cart.tunnel = TunnelProtocol::Hbone;
    cart.services = [(service.key.clone(), vec![])].into_iter().collect();
    let web = Workload::named("Kubernetes", "shop", "a-web");
    let matches = vec![Match {
        principals: vec![StringMatch::parse("*/sa/web")],
        destination_ports: vec![80, 443],
        ..Match::default()
    }];
    let policy = Policy {
        key: PolicyKey::new("shop", "cart-from-web"),
        scope: Scope::Namespace,
        action: Action::Allow,
        mode: Mode::Enforce,
        groups: vec![Group { rules: vec![Rule { matches }, Rule { matches: vec![] }] }],
    };
    Mesh::default().apply(vec![
        Change::Upsert(Resource::Workload(cart)),
        Change::Upsert(Resource::Workload(web)),
        Change::Upsert(Resource::Service(service)),
        Change::Upsert(Resource::Policy(policy)),
    ])
}

#[test]
fn rows_say_what_is_in_force() {
    let mesh = shop();
    let pods = pods(&mesh);
    assert_eq!(pods.iter().map(|row| &*row.name).collect::<Vec<_>>(), ["a-web", "cart-1"]);
    assert!(pods[1].in_mesh && !pods[0].in_mesh);
    assert_eq!(pods[1].services, ["shop/cart"]);
    assert_eq!(pods[1].identity, "spiffe://cluster.local/ns/shop/sa/default");
    let services = services(&mesh);
    assert_eq!((&*services[0].ports[0], &*services[0].addresses[0]), ("80->8080/http", "10.96.0.7"));
    assert_eq!(services[0].endpoints[0].workload, "shop/cart-1");
    let policies = policies(&mesh);
    assert_eq!(policies[0].rules, ["identity */sa/web, port 80,443 and anything"]);
    assert_eq!((policies[0].workloads, &*policies[0].action), (2, "Allow"));
}

#[test]
fn rows_survive_json() {
    let rows = services(&shop());
    let text = serde_json::to_string(&rows).unwrap();
    assert_eq!(serde_json::from_str::<Vec<crate::view::ServiceRow>>(&text).unwrap(), rows);
}
