//! Text and HTTP forms of a tunnel's head: tables for what is accepted, properties for both directions.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::http2::hpack::{Field, HeaderList};

#[rstest]
#[case("10.0.0.7:8080", "10.0.0.7:8080")]
#[case("[fd00::7]:80", "[fd00::7]:80")]
#[case("[FD00:0:0::7]:80", "[fd00::7]:80")]
#[case("[::ffff:10.0.0.7]:80", "[::ffff:10.0.0.7]:80")]
#[case("cart.shop.svc.cluster.local:443", "cart.shop.svc.cluster.local:443")]
#[case("Cart.Shop.:443", "cart.shop:443")]
#[case("a_b:1", "a_b:1")]
fn authority_accepts(#[case] text: &str, #[case] formatted: &str) {
    let authority: Authority = text.parse().unwrap();
    assert_eq!(authority.to_string(), formatted);
}

#[rstest]
#[case("", AuthorityError::Port)]
#[case("10.0.0.7", AuthorityError::Port)]
#[case("10.0.0.7:", AuthorityError::Port)]
#[case("10.0.0.7:0", AuthorityError::Port)]
#[case("10.0.0.7:+80", AuthorityError::Port)]
#[case("10.0.0.7:65536", AuthorityError::Port)]
#[case("fd00::7:80", AuthorityError::Host)]
#[case("[fd00::7:80", AuthorityError::Host)]
#[case("[10.0.0.7]:80", AuthorityError::Host)]
#[case("[fe80::1%eth0]:80", AuthorityError::Host)]
#[case("10.0.0.256:80", AuthorityError::Host)]
#[case("10.1:80", AuthorityError::Host)]
#[case("2130706433:80", AuthorityError::Host)]
#[case("0x7f000001:80", AuthorityError::Host)]
#[case(":80", AuthorityError::Host)]
#[case("a..b:80", AuthorityError::Host)]
#[case("user@host:80", AuthorityError::Host)]
#[case("ho st:80", AuthorityError::Host)]
fn authority_refuses(#[case] text: &str, #[case] error: AuthorityError) {
    assert_eq!(text.parse::<Authority>(), Err(error));
}

#[test]
fn baggage_is_written_in_the_documented_order() {
    let baggage = Baggage {
        cluster: Some("c1".into()),
        namespace: Some("shop".into()),
        workload: Some((WorkloadKind::Deployment, "cart".into())),
        service_name: Some("cart".into()),
        service_version: Some("v2".into()),
        region: Some("r".into()),
        zone: Some("z".into()),
    };
    assert_eq!(
        baggage.to_string(),
        "k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart,service.version=v2,\
         cloud.region=r,cloud.availability_zone=z"
    );
}

#[test]
fn baggage_ignores_what_it_does_not_know_and_never_writes_a_second_key() {
    let read = Baggage::parse(" k8s.namespace.name = shop ;p=1,service.name=,unknown=x,,=,service.version=v1");
    assert_eq!(read.namespace.as_deref(), Some("shop"));
    assert_eq!((read.service_name, read.service_version.as_deref()), (None, Some("v1")));
    let sly = Baggage { service_version: Some("v1,k8s.namespace.name=kube-system".into()), ..Baggage::default() };
    assert_eq!(sly.to_string(), "");
}

#[rstest]
#[case("for=\"10.0.0.1:4711\";host=cart.shop", Some("10.0.0.1:4711"), Some("cart.shop"))]
#[case("FOR=\"[fd00::1]:4711\"", Some("[fd00::1]:4711"), None)]
#[case("host=\"cart\", for=1.1.1.1", None, Some("cart"))]
#[case("for=unknown", None, None)]
#[case("hóst=x;host=y", None, None)]
fn forwarded_reads(#[case] text: &str, #[case] client: Option<&str>, #[case] host: Option<&str>) {
    let forwarded = Forwarded::parse(text);
    assert_eq!(forwarded.client, client.map(|text| text.parse().unwrap()));
    assert_eq!(forwarded.host.as_deref(), host);
}

#[rstest]
#[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true)]
#[case("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false)]
#[case("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false)]
#[case("00-00000000000000000000000000000000-b7ad6b7169203331-01", false)]
#[case("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false)]
#[case("00-0af7651916cd43dd8448eb211c80319cb7ad6b71692033-31-01-", false)]
fn traceparent_reads(#[case] text: &str, #[case] valid: bool) {
    let parsed = text.parse::<Traceparent>();
    assert_eq!(parsed.map(|trace| trace.to_string()).ok(), valid.then(|| text.to_owned()));
}

#[test]
fn repeated_baggage_lines_are_merged_and_empty_ones_dropped() {
    let request = list(&[
        (":method", "CONNECT"),
        (":authority", "10.0.0.7:80"),
        ("baggage", "service.name=a"),
        ("baggage", " "),
        ("baggage", "cloud.region=b"),
        ("traceparent", "junk"),
    ]);
    let head = ConnectHead::decode(&request).unwrap();
    assert_eq!(head.baggage.as_deref(), Some("service.name=a,cloud.region=b"));
    assert_eq!(head.traceparent, None);
}

fn list(fields: &[(&'static str, &'static str)]) -> HeaderList {
    fields.iter().map(|(name, value)| Field::from_static(name, value)).collect::<Vec<_>>().into()
}

#[test]
fn only_connect_opens_a_tunnel() {
    let authority = (":authority", "10.0.0.7:80");
    for request in [
        list(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), authority]),
        list(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), authority]),
        list(&[authority]),
    ] {
        assert_eq!(ConnectHead::decode(&request), Err(DecodeError::NotConnect));
    }
    assert!(matches!(ConnectHead::decode(&list(&[(":method", "CONNECT")])), Err(DecodeError::Authority(_))));
}

#[test]
fn a_head_that_no_header_can_carry_is_an_error() {
    let mut head = ConnectHead::new(Authority::Address("10.0.0.7:80".parse().unwrap()));
    head.baggage = Some("a\r\nb".into());
    assert!(head.encode().is_err());
}

fn authorities() -> impl Strategy<Value = Authority> {
    let address = (any::<IpAddr>(), 1_u16..).prop_map(|(ip, port)| Authority::Address(SocketAddr::new(ip, port)));
    let host = ("([a-z0-9_]([a-z0-9-]{0,20}[a-z0-9])?\\.){0,4}[a-z][a-z0-9-]{0,20}", 1_u16..)
        .prop_map(|(name, port)| Authority::Host { name: name.into(), port });
    prop_oneof![address, host]
}

fn values() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[!#-+.-:<-\\[\\]-~]{1,20}")
}

fn texts() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[!-~]([ -~]{0,30}[!-~])?")
}

fn traces() -> impl Strategy<Value = Traceparent> {
    (1_u128.., 1_u64.., any::<u8>())
        .prop_map(|(trace, parent, flags)| format!("00-{trace:032x}-{parent:016x}-{flags:02x}").parse().unwrap())
}

fn baggages() -> impl Strategy<Value = Baggage> {
    let kind = prop_oneof![
        Just(WorkloadKind::Deployment),
        Just(WorkloadKind::CronJob),
        Just(WorkloadKind::Pod),
        Just(WorkloadKind::Job)
    ];
    let workload = (kind, values()).prop_map(|(kind, name)| name.map(|name| (kind, name)));
    (values(), values(), workload, values(), values(), values(), values()).prop_map(
        |(cluster, namespace, workload, service_name, service_version, region, zone)| Baggage {
            cluster,
            namespace,
            workload,
            service_name,
            service_version,
            region,
            zone,
        },
    )
}

proptest! {
    #[test]
    fn authority_both_ways(authority in authorities()) {
        prop_assert_eq!(authority.to_string().parse(), Ok(authority));
    }

    #[test]
    fn baggage_both_ways(baggage in baggages()) {
        prop_assert_eq!(Baggage::parse(&baggage.to_string()), baggage);
    }

    #[test]
    fn forwarded_both_ways(client: Option<SocketAddr>, host in proptest::option::of("[a-z0-9.-]{1,30}")) {
        let client = client.map(|address| SocketAddr::new(address.ip(), address.port()));
        let forwarded = Forwarded { client, host };
        prop_assert_eq!(Forwarded::parse(&forwarded.to_string()), forwarded);
    }

    #[test]
    fn traceparent_both_ways(trace in traces()) {
        prop_assert_eq!(trace.to_string().parse(), Ok(trace));
    }

    #[test]
    fn head_both_ways(
        authority in authorities(), baggage in texts(), forwarded in texts(), traceparent in proptest::option::of(traces()),
        forwarded_network in texts(), istio_source in texts(),
    ) {
        let head = ConnectHead { authority, baggage, forwarded, traceparent, forwarded_network, istio_source };
        let request = head.encode().unwrap();
        prop_assert_eq!(ConnectHead::decode(&request.into()), Ok(head));
    }

    #[test]
    fn parsers_never_panic(bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = text.parse::<Authority>();
        let _ = text.parse::<Traceparent>();
        let _ = Baggage::parse(&text).to_string();
        let _ = Forwarded::parse(&text).to_string();
    }

    #[test]
    fn parsers_never_panic_on_nearly_right_text(text in "[\\[\\]:0-9a-fx.%=,;\"for-]{0,60}") {
        let _ = text.parse::<Authority>();
        let _ = text.parse::<Traceparent>();
        let _ = Baggage::parse(&text);
        let _ = Forwarded::parse(&text);
    }
}
