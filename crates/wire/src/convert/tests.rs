//! Every resource comes back as it went; what cannot be read is refused by field.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use prost::Message;
use rstest::rstest;
use weft_model::authz::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, Scope as PolicyScope};
use weft_model::authz::{ServiceAccountMatch, StringMatch};
use weft_model::service::{
    AppProtocol, BalanceMode, IpFamilies, LoadBalancing, Scope, Service, ServiceAddress, ServiceKey, ServicePort,
};
use weft_model::workload::{
    ApplicationTunnel, GatewayAddress, GatewayDestination, Health, Locality, PortMapping, TunnelProtocol, Uid,
    Workload, WorkloadType,
};
use weft_model::{NetworkAddress, Resource, SpiffeId};

use super::{DecodeError, ResourceType, decode, encode};
use crate::proto::istio::{security, workload};

fn word() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9.-]{1,12}".prop_map(Arc::from)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,8}".prop_map(Arc::from)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip(), 0_u8..=128).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(most)).unwrap()
    })
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    (word(), word()).prop_map(|(namespace, hostname)| ServiceKey { namespace, hostname })
}

fn policy_key() -> impl Strategy<Value = PolicyKey> {
    (word(), word()).prop_map(|(namespace, name)| PolicyKey { namespace, name })
}

fn gateway() -> impl Strategy<Value = GatewayAddress> {
    let address = (text(), ip()).prop_map(|(network, ip)| NetworkAddress::new(network, ip));
    let destination = prop_oneof![
        address.prop_map(GatewayDestination::Address),
        service_key().prop_map(GatewayDestination::Hostname)
    ];
    (destination, 1_u16..).prop_map(|(destination, hbone_port)| GatewayAddress { destination, hbone_port })
}

fn mapping() -> impl Strategy<Value = PortMapping> {
    any::<(u16, u16)>().prop_map(|(service_port, target_port)| PortMapping { service_port, target_port })
}

fn a_workload() -> impl Strategy<Value = Workload> {
    let names = (word(), text(), text(), text(), text(), word(), word(), word());
    let tunnel = prop_oneof![Just(TunnelProtocol::None), Just(TunnelProtocol::Hbone)];
    let kind = prop_oneof![
        Just(WorkloadType::Deployment),
        Just(WorkloadType::CronJob),
        Just(WorkloadType::Pod),
        Just(WorkloadType::Job)
    ];
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy)];
    let application =
        (any::<bool>(), any::<u16>()).prop_map(|(proxy_protocol, port)| ApplicationTunnel { proxy_protocol, port });
    let locality = (text(), text(), text()).prop_map(|(region, zone, subzone)| Locality { region, zone, subzone });
    let plain = (tunnel, kind, health, any::<(bool, bool, u32)>(), vec(ip(), 0..3));
    let structured = (option::of(gateway()), option::of(gateway()), option::of(application), locality);
    let lists = (vec(policy_key(), 0..3), btree_map(service_key(), vec(mapping(), 0..3), 0..3));
    (names, plain, structured, lists).prop_map(|(names, plain, structured, lists)| Workload {
        uid: Uid(names.0),
        namespace: names.1,
        network: names.2,
        node: names.3.clone(),
        canonical_name: names.4.clone(),
        canonical_revision: names.3,
        workload_name: names.4,
        trust_domain: names.5,
        service_account: names.6,
        cluster: names.7.clone(),
        hostname: names.7,
        tunnel: plain.0,
        workload_type: plain.1,
        health: plain.2,
        native_tunnel: plain.3.0,
        host_network: plain.3.1,
        capacity: plain.3.2,
        addresses: plain.4,
        waypoint: structured.0,
        network_gateway: structured.1,
        application_tunnel: structured.2,
        locality: structured.3,
        policies: lists.0,
        services: lists.1,
        ..Workload::named("c", "n", "w")
    })
}

fn a_service() -> impl Strategy<Value = Service> {
    let protocol = prop_oneof![
        Just(AppProtocol::Unknown),
        Just(AppProtocol::Http11),
        Just(AppProtocol::Http2),
        Just(AppProtocol::Grpc),
        Just(AppProtocol::Tcp),
        Just(AppProtocol::Tls)
    ];
    let port = (any::<u16>(), any::<u16>(), protocol)
        .prop_map(|(service_port, target_port, app_protocol)| ServicePort { service_port, target_port, app_protocol });
    let scope = prop_oneof![
        Just(Scope::Region),
        Just(Scope::Zone),
        Just(Scope::Subzone),
        Just(Scope::Node),
        Just(Scope::Cluster),
        Just(Scope::Network)
    ];
    let mode = prop_oneof![
        Just(BalanceMode::Any),
        Just(BalanceMode::Strict),
        Just(BalanceMode::Failover),
        Just(BalanceMode::Passthrough)
    ];
    let balancing = (vec(scope, 0..4), mode, any::<bool>()).prop_map(|(scopes, mode, allow_unhealthy)| LoadBalancing {
        scopes,
        mode,
        allow_unhealthy,
    });
    let families = prop_oneof![
        Just(IpFamilies::Automatic),
        Just(IpFamilies::V4Only),
        Just(IpFamilies::V6Only),
        Just(IpFamilies::Dual)
    ];
    let address = (text(), net()).prop_map(|(network, prefix)| ServiceAddress { network, prefix });
    let san = (word(), word()).prop_filter_map("a valid identity", |(namespace, account)| {
        SpiffeId::new("cluster.local", &namespace, &account).ok()
    });
    let lists = (vec(address, 0..3), vec(port, 0..3), vec(san, 0..3));
    (service_key(), text(), lists, option::of(gateway()), balancing, families, any::<(bool, bool)>()).prop_map(
        |(key, name, lists, waypoint, load_balancing, ip_families, flags)| Service {
            key,
            name,
            addresses: lists.0,
            ports: lists.1,
            subject_alt_names: lists.2,
            waypoint,
            load_balancing,
            ip_families,
            canonical: flags.0,
            namespace_only: flags.1,
        },
    )
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let string = || {
        let one = prop_oneof![
            text().prop_map(StringMatch::Exact),
            text().prop_map(StringMatch::Prefix),
            text().prop_map(StringMatch::Suffix),
            Just(StringMatch::Presence)
        ];
        vec(one, 0..3)
    };
    let account = || vec((text(), text()).prop_map(|(namespace, name)| ServiceAccountMatch { namespace, name }), 0..2);
    let strings = (string(), string(), string(), string());
    let nets = (vec(net(), 0..3), vec(net(), 0..3), vec(net(), 0..3), vec(net(), 0..3));
    let ports = (vec(any::<u16>(), 0..3), vec(any::<u16>(), 0..3), account(), account());
    let one = (strings, nets, ports).prop_map(|(strings, nets, ports)| Match {
        namespaces: strings.0,
        not_namespaces: strings.1,
        principals: strings.2,
        not_principals: strings.3,
        source_ips: nets.0,
        not_source_ips: nets.1,
        destination_ips: nets.2,
        not_destination_ips: nets.3,
        destination_ports: ports.0,
        not_destination_ports: ports.1,
        service_accounts: ports.2,
        not_service_accounts: ports.3,
    });
    let rule = vec(one, 0..3).prop_map(|matches| Rule { matches });
    let group = vec(rule, 0..3).prop_map(|rules| Group { rules });
    let scope = prop_oneof![Just(PolicyScope::Global), Just(PolicyScope::Namespace), Just(PolicyScope::Selected)];
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Shadow)];
    (policy_key(), scope, action, mode, vec(group, 0..3)).prop_map(|(key, scope, action, mode, groups)| Policy {
        key,
        scope,
        action,
        mode,
        groups,
    })
}

fn a_resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        a_workload().prop_map(Resource::Workload),
        a_service().prop_map(Resource::Service),
        a_policy().prop_map(Resource::Policy)
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(resource in a_resource()) {
        let encoded = encode(&resource);
        let kind = ResourceType::of(&resource);
        prop_assert_eq!(kind, ResourceType::of_key(&resource.key()));
        let decoded = decode(kind, &encoded.bytes).unwrap();
        prop_assert_eq!(encode(&decoded), encoded, "the same value has the same version");
        prop_assert_eq!(decoded, resource);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        for kind in ResourceType::ALL {
            if let Ok(resource) = decode(kind, &bytes) {
                let again = decode(kind, &encode(&resource).bytes);
                prop_assert_eq!(again, Ok(resource));
            }
        }
    }
}

fn wire_workload() -> workload::Workload {
    workload::Workload { uid: "u".to_owned(), ..workload::Workload::default() }
}

fn decode_workload(message: workload::Workload) -> Result<Resource, DecodeError> {
    let address = workload::Address { r#type: Some(workload::address::Type::Workload(message)) };
    decode(ResourceType::Address, &address.encode_to_vec())
}

fn decode_service(change: impl FnOnce(&mut workload::Service)) -> Result<Service, DecodeError> {
    let mut message =
        workload::Service { namespace: "n".to_owned(), hostname: "h".to_owned(), ..workload::Service::default() };
    change(&mut message);
    super::service_from_wire(message)
}

#[test]
fn absent_fields_have_the_defaults_of_the_wire() {
    let Ok(Resource::Workload(workload)) = decode_workload(wire_workload()) else { panic!("not a workload") };
    assert_eq!(&*workload.trust_domain, "cluster.local");
    assert_eq!(&*workload.service_account, "default");
    assert_eq!(&*workload.cluster, "Kubernetes");
    assert_eq!((workload.capacity, workload.workload_type), (1, WorkloadType::Deployment));
    let service = decode_service(|_| {}).unwrap();
    assert!(!service.canonical && !service.namespace_only);
    assert_eq!(decode_service(|service| service.visibility = 77).map(|service| service.namespace_only), Ok(false));
}

/// Field numbers are the contract: bytes written by hand from the table, not by our encoder.
#[test]
fn bytes_by_hand() {
    let workload = [0xa2, 0x01, 1, b'u', 0x1a, 4, 10, 0, 0, 1, 0x28, 1, 0x9a, 0x01, 0x04, 0x12, 0x02, 0x12, 0x00];
    let mut address = vec![0x0a, workload.len() as u8];
    address.extend(workload);
    let refused = decode(ResourceType::Address, &address);
    assert_eq!(refused, Err(DecodeError::AddressLength { field: "network_gateway", length: 0 }));
    let workload = [0xa2, 0x01, 1, b'u', 0x1a, 4, 10, 0, 0, 1, 0x28, 1, 0x88, 0x01, 1, 0xda, 0x01, 2, 0x08, 7];
    let mut address = vec![0x0a, workload.len() as u8];
    address.extend(workload);
    let Ok(Resource::Workload(workload)) = decode(ResourceType::Address, &address) else { panic!("not a workload") };
    assert_eq!(workload.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((workload.tunnel, workload.health, workload.capacity), (TunnelProtocol::Hbone, Health::Unhealthy, 7));
    let policy = [0x0a, 1, b'p', 0x12, 1, b'n', 0x18, 2, 0x20, 1, 0x30, 1];
    let Ok(Resource::Policy(policy)) = decode(ResourceType::Authorization, &policy) else { panic!("not a policy") };
    assert_eq!(policy.key.to_string(), "n/p");
    assert_eq!((policy.scope, policy.action, policy.mode), (PolicyScope::Selected, Action::Deny, Mode::Shadow));
}

type ChangeWorkload = fn(&mut workload::Workload);

#[rstest]
#[case(|w: &mut workload::Workload| w.uid.clear(), "uid")]
#[case(|w: &mut workload::Workload| w.addresses.push(vec![1, 2, 3]), "addresses")]
#[case(|w: &mut workload::Workload| w.addresses.push(vec![]), "addresses")]
#[case(|w: &mut workload::Workload| w.tunnel_protocol = 2, "tunnel_protocol: LEGACY_ISTIO_MTLS is not supported")]
#[case(|w: &mut workload::Workload| w.tunnel_protocol = 3, "tunnel_protocol")]
#[case(|w: &mut workload::Workload| w.workload_type = 4, "workload_type")]
#[case(|w: &mut workload::Workload| w.status = -1, "status")]
#[case(|w: &mut workload::Workload| w.network_mode = 9, "network_mode")]
#[case(|w: &mut workload::Workload| w.waypoint = Some(Default::default()), "waypoint: must be set")]
#[case(|w: &mut workload::Workload| w.network_gateway = Some(Default::default()), "network_gateway: must be set")]
#[case(|w: &mut workload::Workload| w.authorization_policies.push("no-slash".into()), "authorization_policies")]
#[case(|w: &mut workload::Workload| drop(w.services.insert("no-slash".into(), Default::default())), "services")]
#[case(|w: &mut workload::Workload| w.application_tunnel = Some(workload::ApplicationTunnel { protocol: 7, port: 1 }), "application_tunnel.protocol")]
#[case(|w: &mut workload::Workload| w.application_tunnel = Some(workload::ApplicationTunnel { protocol: 1, port: 70000 }), "application_tunnel.port")]
fn a_workload_that_cannot_be_read(#[case] change: ChangeWorkload, #[case] begins: &str) {
    let mut message = wire_workload();
    change(&mut message);
    let error = decode_workload(message).unwrap_err().to_string();
    assert!(error.starts_with(begins), "{error}");
}

type ChangeService = fn(&mut workload::Service);

fn network_address(address: &[u8], length: Option<u32>) -> workload::NetworkAddress {
    workload::NetworkAddress { network: String::new(), address: address.to_vec(), length }
}

#[rstest]
#[case(|s: &mut workload::Service| s.hostname.clear(), "hostname")]
#[case(|s: &mut workload::Service| s.namespace = "a/b".into(), "namespace")]
#[case(|s: &mut workload::Service| s.addresses.push(network_address(&[1, 2, 3, 4], Some(33))), "addresses: a prefix of 33")]
#[case(|s: &mut workload::Service| s.addresses.push(network_address(&[0; 16], Some(300))), "addresses: a prefix of 300")]
#[case(|s: &mut workload::Service| s.addresses.push(network_address(&[1; 5], None)), "addresses: an address has 4 or 16 bytes, not 5")]
#[case(|s: &mut workload::Service| s.ports.push(workload::Port { service_port: 65536, ..Default::default() }), "ports.service_port")]
#[case(|s: &mut workload::Service| s.ports.push(workload::Port { app_protocol: 6, ..Default::default() }), "ports.app_protocol")]
#[case(|s: &mut workload::Service| s.ip_families = 4, "ip_families")]
#[case(|s: &mut workload::Service| s.load_balancing = Some(workload::LoadBalancing { mode: 4, ..Default::default() }), "load_balancing.mode")]
#[case(|s: &mut workload::Service| s.load_balancing = Some(workload::LoadBalancing { routing_preference: vec![0], ..Default::default() }), "load_balancing.routing")]
#[case(|s: &mut workload::Service| s.weighted_waypoints.push(Default::default()), "weighted_waypoints.destination")]
fn a_service_that_cannot_be_read(#[case] change: ChangeService, #[case] begins: &str) {
    let error = decode_service(change).unwrap_err().to_string();
    assert!(error.starts_with(begins), "{error}");
}

#[test]
fn the_heaviest_of_weighted_waypoints_is_taken_and_foreign_names_are_left_out() {
    let waypoint = |hostname: &str, weight| workload::WeightedWaypoint {
        destination: Some(workload::GatewayAddress {
            destination: Some(workload::gateway_address::Destination::Hostname(workload::NamespacedHostname {
                namespace: "n".to_owned(),
                hostname: hostname.to_owned(),
            })),
            hbone_mtls_port: 0,
        }),
        weight,
    };
    let service = decode_service(|service| {
        service.weighted_waypoints = vec![waypoint("light", 10), waypoint("first", 45), waypoint("second", 45)];
        service.subject_alt_names = vec!["db.example.com".to_owned(), "spiffe://t/ns/a/sa/b".to_owned()];
    });
    let service = service.unwrap();
    let expected = GatewayDestination::Hostname(ServiceKey::new("n", "first"));
    assert_eq!(service.waypoint, Some(GatewayAddress { destination: expected, hbone_port: 15008 }));
    assert_eq!(service.subject_alt_names, [SpiffeId::new("t", "a", "b").unwrap()]);
}

fn decode_policy(action: security::Action, one: security::Match) -> Result<Policy, DecodeError> {
    super::policy_from_wire(security::Authorization {
        name: "p".to_owned(),
        namespace: "n".to_owned(),
        action: action.into(),
        groups: vec![security::Group { rules: vec![security::Rules { matches: vec![one] }] }],
        ..security::Authorization::default()
    })
}

#[rstest]
#[case(security::Match { principals: vec![security::StringMatch { match_type: None }], ..Default::default() }, "principals: must be set")]
#[case(security::Match { source_ips: vec![security::Address { address: vec![1; 4], length: 33 }], ..Default::default() }, "source_ips")]
#[case(security::Match { not_destination_ips: vec![security::Address { address: vec![1; 6], length: 3 }], ..Default::default() }, "not_destination_ips")]
#[case(security::Match { destination_ports: vec![65536], ..Default::default() }, "destination_ports")]
fn a_policy_that_cannot_be_read(#[case] one: security::Match, #[case] begins: &str) {
    let error = decode_policy(security::Action::Allow, one).unwrap_err().to_string();
    assert!(error.starts_with(begins), "{error}");
}

#[test]
fn a_condition_that_we_do_not_know_fails_closed() {
    let port = |policy: Policy| policy.groups[0].rules[0].matches[0].clone();
    let unknown = || security::Match { extensions: vec![security::Extension::default()], ..Default::default() };
    let with_port = || security::Match { destination_ports: vec![80], ..unknown() };
    assert!(port(decode_policy(security::Action::Allow, with_port()).unwrap()).is_empty());
    assert_eq!(port(decode_policy(security::Action::Deny, with_port()).unwrap()).destination_ports, [80]);
    assert_eq!(port(decode_policy(security::Action::Deny, unknown()).unwrap()).not_destination_ports, [0]);
}

#[test]
fn versions_are_of_the_content() {
    let mut workload = Workload::named("c", "n", "w");
    let first = encode(&Resource::Workload(workload.clone())).version;
    assert_eq!(first.len(), 16);
    workload.services = BTreeMap::from([(ServiceKey::new("n", "a"), vec![]), (ServiceKey::new("n", "b"), vec![])]);
    let second = encode(&Resource::Workload(workload.clone())).version;
    assert_ne!(first, second);
    workload.services.clear();
    assert_eq!(encode(&Resource::Workload(workload)).version, first);
}
