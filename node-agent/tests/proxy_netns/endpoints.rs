//! Endpoints that fail: a node that vanishes without a word, applications that refuse, hang, or reset what they accepted. What
//! a client sees, what is left out, and that it is used again.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weft_hbone::settings::KeepaliveSettings;
use weft_model::Reason;
use weft_model::ejection::EjectionSettings;
use weft_node_agent::environment::ProxySettings;
use weft_node_agent::telemetry::{ConnectionRecord, Direction};
use weft_testkit::enter_or_skip;
use weft_testkit::netns::{Lab, Pod};
use weft_testkit::traffic::{Behaviour, Server};
use weft_testkit::wire::Capture;

use crate::nodes::{Cluster, DEADLINE, eventually, service};
use crate::{accept, connect, is_reset, listen, vip};

/// A new connection is answered within this, also while nobody knows yet that a node is gone: two attempts of 2 s each that
/// find silence, and the third.
const WORST: Duration = Duration::from_secs(6);
/// Longer than the tests take, so that nothing is tried again meanwhile.
const LONG: Duration = Duration::from_secs(60);

/// What servers say first; never to be seen on the wire.
const MARKER: &str = "4111-MARKER";
const HBONE: u16 = 15008;

/// Looks at the wire of the client's node.
fn watch(lab: &Lab) -> Capture {
    Capture::start(lab.wire().name(), "node1", &[MARKER]).unwrap()
}

/// Whatever failed and was tried elsewhere, nothing went past the tunnels.
fn assert_only_tunnels(wire: &Capture) {
    let report = wire.report();
    report.assert_no_marker().unwrap();
    report.assert_only_tls_on(&[HBONE]).unwrap();
}

fn ejection(first: Duration) -> EjectionSettings {
    EjectionSettings { first, longest: first.max(LONG), ..EjectionSettings::default() }
}

fn greet(pod: &Pod) -> Server {
    behave(pod, Behaviour::Greet(MARKER.to_owned()))
}

fn behave(pod: &Pod, behaviour: Behaviour) -> Server {
    Server::start(&pod.netns, SocketAddr::new(pod.address(false), 8080), behaviour).unwrap()
}

/// Calls the service and waits for its first words.
fn answers(client: &Pod, to: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = connect(client, to)?;
    stream.read_exact(&mut [0; MARKER.len()])?;
    Ok(stream)
}

fn left_out(cluster: &Cluster, kind: &str) -> Vec<String> {
    let rows = cluster.health(1).rows().into_iter();
    rows.filter(|row| row.kind == kind).map(|row| format!("{} {}", row.subject, row.cause)).collect()
}

#[test]
fn a_node_that_vanishes_costs_new_connections_seconds_once_and_live_ones_end_as_reset() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(3).build().unwrap();
    let wire = watch(&lab);
    let web = lab.pod(1, "web").unwrap();
    // Most endpoints of the service vanish with their node.
    let (cart1, cart2) = (lab.pod(2, "cart1").unwrap(), lab.pod(2, "cart2").unwrap());
    let cart3 = lab.pod(3, "cart3").unwrap();
    let keepalive = KeepaliveSettings { interval: Duration::from_millis(500), timeout: Duration::from_secs(3) };
    let mut settings = ProxySettings::default();
    (settings.pool.connection.keepalive, settings.tunnel.keepalive) = (keepalive, keepalive);
    let mut cluster = Cluster::tuned(&lab, 3, &settings, ejection(LONG));
    cluster.enrol(&[&web, &cart1, &cart2, &cart3]);
    cluster.apply([service("cart", 1)]);
    let (servers, to) = ([&cart1, &cart2, &cart3].map(greet), vip(1, false));
    let mut live = Vec::new();
    eventually(|| {
        live.push(answers(&web, to).unwrap());
        servers.iter().all(|server| server.accepted() >= 2)
    });
    let before = servers[2].accepted();

    lab.wire().ip("link set node2 nomaster\n").unwrap();
    let vanished = Instant::now();
    let mut answered = Vec::new();
    while vanished.elapsed() < WORST || left_out(&cluster, "node").is_empty() {
        let begin = Instant::now();
        answered.push(answers(&web, to).unwrap());
        assert!(begin.elapsed() < WORST, "{:?} after it vanished: {:?}", begin - vanished, begin.elapsed());
        assert!(vanished.elapsed() < DEADLINE, "never left out: {:?}", cluster.health(1).rows());
    }
    assert_eq!(servers[2].accepted() - before, answered.len() as u64, "the third node answered all");
    assert_eq!(left_out(&cluster, "node"), ["node2 no answer"]);
    // From now on nobody waits for it.
    let begin = Instant::now();
    (0..20).for_each(|_| answered.push(answers(&web, to).unwrap()));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // What was live there ends as what it is; what is live elsewhere goes on.
    let (mut resets, mut alive) = (0, 0);
    for mut stream in live {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        match stream.read(&mut [0]).map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionReset) => resets += 1,
            Err(ErrorKind::WouldBlock) => alive += 1,
            other => panic!("neither reset nor alive: {other:?}"),
        }
    }
    assert!(resets >= 2 && alive >= 2, "{resets} reset, {alive} alive");
    assert_only_tunnels(&wire);
}

#[test]
fn an_application_that_refuses_is_left_out_and_used_again_when_it_listens() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let wire = watch(&lab);
    let (web, cart1, cart2) = (lab.pod(1, "web").unwrap(), lab.pod(1, "cart1").unwrap(), lab.pod(2, "cart2").unwrap());
    let mut cluster = Cluster::tuned(&lab, 2, &ProxySettings::default(), ejection(Duration::from_secs(1)));
    cluster.enrol(&[&web, &cart1, &cart2]);
    cluster.apply([service("cart", 1)]);
    let to = vip(1, false);
    // On the client's own node, then behind a tunnel.
    for (dead, well) in [(&cart1, &cart2), (&cart2, &cart1)] {
        let _server = greet(well);
        eventually(|| {
            answers(&web, to).unwrap();
            left_out(&cluster, "endpoint") == [format!("shop/{}:8080 refused", dead.name)]
        });
        let server = greet(dead);
        eventually(|| {
            answers(&web, to).unwrap();
            server.accepted() > 0
        });
        eventually(|| left_out(&cluster, "endpoint").is_empty());
        drop(server);
    }
    // The last one is never left out: a client hears the reason of today, not of before.
    eventually(|| {
        assert!(is_reset(connect(&web, to)));
        left_out(&cluster, "endpoint").len() == 1
    });
    (0..5).for_each(|_| assert!(is_reset(connect(&web, to))));
    let detail = |record: &ConnectionRecord| record.detail.as_deref().unwrap_or("").to_owned();
    let refused = (Direction::Outbound, Some(Reason::ConnectRefused));
    let record = cluster.record(|record| (record.direction, record.reason) == refused && detail(record).contains("; "));
    for name in ["cart1", "cart2"] {
        assert!(
            detail(&record).contains(&format!("shop/{name}: connect-refused")),
            "each attempt is named: {record:?}"
        );
    }
    let _servers = [greet(&cart1), greet(&cart2)];
    answers(&web, to).unwrap();
    assert_only_tunnels(&wire);
}

#[test]
fn an_application_that_hangs_is_tried_elsewhere_and_left_out() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let wire = watch(&lab);
    let (web, cart1, cart2) = (lab.pod(1, "web").unwrap(), lab.pod(2, "cart1").unwrap(), lab.pod(2, "cart2").unwrap());
    let settings = ProxySettings { attempt_patience: Duration::from_millis(500), ..ProxySettings::default() };
    let mut cluster = Cluster::tuned(&lab, 2, &settings, ejection(LONG));
    cluster.enrol(&[&web, &cart1, &cart2]);
    cluster.apply([service("cart", 1)]);
    let _server = greet(&cart2);
    // A queue of one that is full: SYNs are dropped, as by a program that has stopped accepting.
    let hanging = cart1
        .run(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            let at = SocketAddr::new(cart1.address(false), 8080);
            socket.bind(&at.into())?;
            socket.listen(0)?;
            TcpStream::connect(at).map(|first| (socket, first))
        })
        .unwrap()
        .unwrap();
    let to = vip(1, false);
    eventually(|| {
        let begin = Instant::now();
        answers(&web, to).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        left_out(&cluster, "endpoint") == ["shop/cart1:8080 no answer"]
    });
    let begin = Instant::now();
    (0..20).for_each(|_| drop(answers(&web, to).unwrap()));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(left_out(&cluster, "tunnel"), [""; 0], "its agent is well");
    drop(hanging);
    assert_only_tunnels(&wire);
}

#[test]
fn an_application_that_resets_what_it_accepts_is_left_out() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let wire = watch(&lab);
    let (web, cart1, cart2) = (lab.pod(1, "web").unwrap(), lab.pod(1, "cart1").unwrap(), lab.pod(2, "cart2").unwrap());
    let mut cluster = Cluster::tuned(&lab, 2, &ProxySettings::default(), ejection(LONG));
    cluster.enrol(&[&web, &cart1, &cart2]);
    cluster.apply([service("cart", 1)]);
    let _well = greet(&cart1);
    let bad = listen(&cart2, false, 8080);
    let to = vip(1, false);
    let (mut reset, mut calls) = (0, 0);
    eventually(|| {
        let call = connect(&web, to).unwrap();
        calls += 1;
        bad.set_nonblocking(true).unwrap();
        let mut stream = call;
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        match stream.read(&mut [0]) {
            Ok(1..) => {}
            _ => {
                // It went to the bad one, which has said nothing yet.
                let (at_server, _) = accept(&bad);
                socket2::SockRef::from(&at_server).set_linger(Some(Duration::ZERO)).unwrap();
                drop(at_server);
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
                reset += 1;
            }
        }
        left_out(&cluster, "endpoint") == ["shop/cart2:8080 reset"]
    });
    assert!((5..=6).contains(&reset), "{reset} of {calls} were reset");
    (0..20).for_each(|_| drop(answers(&web, to).unwrap()));
    assert_only_tunnels(&wire);
}
