//! Servers, clients, load and capture, tried against each other over a lab without a mesh.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as tests")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_testkit::netns::{Lab, Pod};
use weft_testkit::traffic::{self, Behaviour, Ending, Load, LoadPlan, Outcome, Server};
use weft_testkit::wire::Capture;

const SOON: Duration = Duration::from_secs(3);

fn at(pod: &Pod, v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(pod.address(v6), port)
}

fn serve(pod: &Pod, port: u16, behaviour: Behaviour) -> Server {
    Server::start(&pod.netns, SocketAddr::new("::".parse::<IpAddr>().unwrap(), port), behaviour).unwrap()
}

#[test]
fn ends_look_like_what_they_are() {
    weft_testkit::enter_or_skip!();
    let lab = Lab::builder().build().unwrap();
    let (client, server) = (lab.pod(1, "client").unwrap(), lab.pod(2, "server").unwrap());
    let echo = serve(&server, 7, Behaviour::Echo);
    let _greet = serve(&server, 25, Behaviour::Greet("220 ready".into()));
    let _peer = serve(&server, 26, Behaviour::PeerAddress);
    let _count = serve(&server, 27, Behaviour::Count);
    let _reset = serve(&server, 28, Behaviour::Reset);
    let _close = serve(&server, 29, Behaviour::Close);
    let silent = serve(&server, 30, Behaviour::Silent);
    let from = client.netns.as_str();
    for v6 in [false, true] {
        let outcome = |port| traffic::outcome(from, at(&server, v6, port), Duration::from_secs(1));
        assert_eq!(outcome(7), Outcome::Answered("?".into()));
        assert_eq!(outcome(8), Outcome::Refused);
        assert_eq!(outcome(28), Outcome::Reset);
        assert_eq!(outcome(29), Outcome::Closed);
        assert_eq!(outcome(30), Outcome::Silent);
        assert_eq!(traffic::who_am_i(from, at(&server, v6, 26)).unwrap().ip().to_canonical(), client.address(v6));
        assert_eq!(traffic::greeting(from, at(&server, v6, 25), 9).unwrap().0, "220 ready");
        traffic::half_close(from, at(&server, v6, 27), 300_000).unwrap();
    }
    let nobody = SocketAddr::new("10.244.2.200".parse().unwrap(), 7);
    assert_ne!(traffic::outcome(from, nobody, Duration::from_millis(200)), Outcome::Refused);
    // Endings as the server sees them: FIN twice (the outcomes above), then RST.
    assert!(echo.wait_finished(2, SOON).unwrap().iter().all(|record| record.ending == Ending::Fin));
    let stream = traffic::connect(from, at(&server, false, 7), SOON).unwrap();
    traffic::echo(&stream, &vec![b'x'; 3_000_000]).unwrap();
    traffic::reset(stream);
    let last = echo.wait_finished(3, SOON).unwrap().pop().unwrap();
    assert_eq!((last.ending, last.bytes), (Ending::Reset, 3_000_000));
    let stream = traffic::connect(from, at(&server, false, 30), SOON).unwrap();
    weft_testkit::wait::until(SOON, "the accept", || silent.accepted() == 3).unwrap();
    silent.reset_all();
    assert!(traffic::read_until_end(&stream).is_err(), "a reset is no orderly end");
}

#[test]
fn load_counts_and_capture_sees_markers() {
    weft_testkit::enter_or_skip!();
    let lab = Lab::builder().build().unwrap();
    let (client, server) = (lab.pod(1, "client").unwrap(), lab.pod(2, "server").unwrap());
    let capture = Capture::start(lab.wire().name(), "node1", &["4111-MARKER"]).unwrap();
    let echo = serve(&server, 7, Behaviour::Echo);
    let plan = |v6, new_connections| LoadPlan {
        target: at(&server, v6, 7),
        rate: 100,
        new_connections,
        patience: SOON,
        text: "card=4111-MARKER".into(),
    };
    let loads = [(false, true), (true, false)].map(|(v6, new)| Load::start(&client.netns, plan(v6, new)).unwrap());
    for load in &loads {
        load.wait_more(20, SOON).unwrap();
        load.totals().assert_clean().unwrap();
    }
    drop(echo);
    let failed = || loads.iter().all(|load| load.totals().failed > 4);
    weft_testkit::wait::until(SOON, "failures without a server", failed).unwrap();
    let [new, kept] = loads.map(Load::stop);
    assert!(new.failures.iter().any(|failure| failure.error.contains("refused")), "{:?}", new.failures);
    assert!(kept.failed > 0 && new.sent == new.ok + new.failed, "{new:?}");
    let report = capture.report();
    // Every answered request carried the marker there and back.
    assert!(report.markers() >= 2 * (new.ok + kept.ok), "{} {new:?} {kept:?}", report.markers());
    assert!(report.on_port(7).iter().any(|flow| flow.rst > 0 && flow.syn == 1));
    assert!(report.evidence[0].contains("card=4111-MARKER"));
    assert!(report.assert_only_tls_on(&[15008]).is_err() && report.assert_no_marker().is_err());
    capture.forget();
    assert_eq!(capture.report().flows.len(), 0);
}
