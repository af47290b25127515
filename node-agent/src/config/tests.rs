//! What is accepted, what is refused, and in which words.

use clap::{CommandFactory, Parser};
use rstest::rstest;

use super::{Arguments, Endpoint, Half, KeyValue};

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn run_takes_the_options_of_both_halves() {
    let words = "weft-node-agent run --node a --source dir:/x --xds-address 10.0.0.1:15012 --workers 3";
    let Half::Run { common, capture, proxy, only, .. } = Arguments::parse_from(words.split(' ')).half else {
        panic!("not run")
    };
    assert_eq!((common.node.as_str(), only), ("a", None));
    assert_eq!(capture.source, std::path::Path::new("/x"));
    assert_eq!(proxy.worker_count(), 3);
    assert_eq!(proxy.control_plane.xds_address.to_string(), "10.0.0.1:15012");
}

#[rstest]
#[case("proxy --workers")]
#[case("capture --source dir:/x --initial-workers")]
fn not_numbers_of_workers(#[case] half: &str) {
    for count in ["0", "41", "-1", "many"] {
        let words = format!("weft-node-agent {half}={count} --node a");
        let error = Arguments::try_parse_from(words.split(' ')).unwrap_err().to_string();
        assert!(error.contains("workers") && error.contains("1 to 40"), "{error}");
    }
}

#[rstest]
#[case("istiod.istio-system.svc:15012", "istiod.istio-system.svc", 15012)]
#[case("https://istiod.istio-system.svc:15012", "istiod.istio-system.svc", 15012)]
#[case("[fd00::1]:1", "fd00::1", 1)]
fn endpoints(#[case] text: &str, #[case] host: &str, #[case] port: u16) {
    assert_eq!(text.parse(), Ok(Endpoint { host: host.to_owned(), port }));
}

#[rstest]
#[case("")]
#[case("host")]
#[case("host:")]
#[case(":1")]
#[case("host:0")]
#[case("host:65536")]
#[case("fd00::1:15012")]
fn not_endpoints(#[case] text: &str) {
    let error = text.parse::<Endpoint>().unwrap_err().to_string();
    assert!(error.contains("HOST:PORT"), "{error}");
}

#[test]
fn pairs() {
    let pair: KeyValue = "A=b=c".parse().unwrap();
    assert_eq!((pair.name.as_str(), pair.value.as_str()), ("A", "b=c"));
    assert!("=x".parse::<KeyValue>().is_err());
}
