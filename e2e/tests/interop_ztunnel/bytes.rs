//! Bytes: equal, in both directions and families, over nothing but TLS, many streams at once, each with the right name.

use weft_testkit::traffic::{Behaviour, Server, connect, echo, half_close, who_am_i};

use crate::stage::{EFFECT, HBONE, Stage, anywhere};
use crate::stage_or_skip;

/// Bytes of the long transfers: more than a stream's window (ztunnel's 4 MiB).
const LONG: usize = 6 << 20;
/// Bytes of transfers that the capture follows without a gap on any machine.
const SHORT: usize = 100_000;
/// As many as the reference's list asks for; twice what a ztunnel opens on one connection.
const STREAMS: usize = 200;
/// How the two applications are known.
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251).to_le_bytes()[0]).collect()
}

#[test]
fn equal_both_ways_in_both_families() {
    let stage = stage_or_skip!("equal_both_ways_in_both_families");
    for length in [SHORT, LONG] {
        for (from, to) in [(&stage.ours, &stage.theirs), (&stage.theirs, &stage.ours)] {
            let server = Server::start(&to.netns, anywhere(), Behaviour::Echo).unwrap();
            for v6 in [false, true] {
                let stream = connect(&from.netns, Stage::app(to, v6), EFFECT).unwrap();
                echo(&stream, &pattern(length)).unwrap();
            }
            drop(server);
            let _counter = Server::start(&to.netns, anywhere(), Behaviour::Count).unwrap();
            for v6 in [false, true] {
                half_close(&from.netns, Stage::app(to, v6), length).unwrap();
            }
        }
        if length == SHORT {
            stage.assert_only_hbone().unwrap();
        }
    }
    stage.assert_nothing_but_hbone_seen().unwrap();
}

#[test]
fn each_side_knows_the_other_by_name_and_address() {
    let stage = stage_or_skip!("each_side_knows_the_other_by_name_and_address");
    for (from, to) in [(&stage.ours, &stage.theirs), (&stage.theirs, &stage.ours)] {
        let _server = Server::start(&to.netns, anywhere(), Behaviour::PeerAddress).unwrap();
        for v6 in [false, true] {
            let seen = who_am_i(&from.netns, Stage::app(to, v6)).unwrap().ip().to_canonical();
            assert_eq!(seen, from.address(v6), "{} v6 {v6}", to.name);
        }
    }
    let outbound = format!("dst.identity=\"{CART}\"");
    let inbound = format!("src.identity=\"{WEB}\"");
    let theirs = stage.wait_their_log(&["connection complete", "direction=\"inbound\"", &inbound]).unwrap();
    assert!(theirs.contains("src.workload=\"web-1\"") && theirs.contains("dst.workload=\"cart-1\""), "{theirs}");
    let theirs = stage.wait_their_log(&["connection complete", "direction=\"outbound\""]).unwrap();
    assert!(theirs.contains(&format!("dst.identity=\"{WEB}\"")), "{theirs}");
    for words in
        [["direction=outbound", &outbound.replace('"', "")], ["direction=inbound", &format!("src.identity={CART}")]]
    {
        let ours = stage.wait_our_log(&[words[0], words[1], "verdict=ok", "security=mtls"]).unwrap();
        assert!(ours.contains("web-1") && ours.contains("cart-1"), "{ours}");
    }
    for (whose, metrics) in [("ours", stage.our_metrics().unwrap()), ("theirs", stage.their_metrics().unwrap())] {
        for (reporter, source, destination) in [("source", WEB, CART), ("destination", CART, WEB)] {
            let (source, destination) = if whose == "ours" { (source, destination) } else { (destination, source) };
            let words = [
                "istio_tcp_connections_opened_total".to_owned(),
                format!("reporter=\"{reporter}\""),
                format!("source_principal=\"{source}\""),
                format!("destination_principal=\"{destination}\""),
                "connection_security_policy=\"mutual_tls\"".to_owned(),
            ];
            let found = metrics.lines().any(|line| words.iter().all(|word| line.contains(word.as_str())));
            assert!(found, "{whose}: no {words:?} in\n{metrics}");
        }
    }
}

#[test]
fn services_lead_to_the_other_side() {
    let stage = stage_or_skip!("services_lead_to_the_other_side");
    for (from, to, number) in [(&stage.ours, &stage.theirs, 22), (&stage.theirs, &stage.ours, 21)] {
        let _server = Server::start(&to.netns, anywhere(), Behaviour::Echo).unwrap();
        let (v4, v6) = weft_testkit::netns::cluster_ip(number);
        for address in [std::net::IpAddr::from(v4), v6.into()] {
            let stream = connect(&from.netns, (address, 80).into(), EFFECT).unwrap();
            echo(&stream, b"by its service").unwrap();
        }
    }
    stage.assert_only_hbone().unwrap();
    stage.wait_their_log(&["direction=\"outbound\"", "dst.service=\"web.shop.svc.cluster.local\""]).unwrap();
}

#[test]
fn two_hundred_streams_at_once() {
    let stage = stage_or_skip!("two_hundred_streams_at_once");
    for (from, to) in [(&stage.ours, &stage.theirs), (&stage.theirs, &stage.ours)] {
        let server = Server::start(&to.netns, anywhere(), Behaviour::Echo).unwrap();
        let streams: Vec<_> =
            (0..STREAMS).map(|_| connect(&from.netns, Stage::app(to, false), EFFECT).unwrap()).collect();
        // Twice: at the second time all are known to be open together.
        for round in 0..2 {
            for (number, stream) in streams.iter().enumerate() {
                echo(stream, format!("round {round}, stream {number}").as_bytes()).unwrap();
            }
        }
        assert_eq!(server.accepted(), STREAMS as u64);
    }
    let report = stage.assert_only_hbone().unwrap();
    let connections = report.on_port(HBONE).len();
    assert!(connections <= 8, "{connections} TLS connections carried {STREAMS} streams each way");
}
