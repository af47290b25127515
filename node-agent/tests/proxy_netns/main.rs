//! Both halves of two agents in real network namespaces: connections of captured pods, IPv4 and IPv6, one node and two.

#![expect(clippy::unwrap_used, reason = "test equipment outside of #[test] functions: a failure is the test's")]

mod endpoints;
#[path = "../common/issuer.rs"]
mod issuer;
mod nodes;
mod probes;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};

use weft_model::Reason;
use weft_model::authz::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, Scope, StringMatch};
use weft_model::change::Resource;
use weft_model::workload::TunnelProtocol;
use weft_node_agent::telemetry::{Direction, Security};
use weft_node_agent::worker::shard::SOURCE_PORTS;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::{Lab, Pod};

use nodes::{Cluster, DEADLINE, eventually, service, workload};

fn vip(last: u8, v6: bool) -> SocketAddr {
    let address = if v6 { format!("[fd96::{last}]:80") } else { format!("10.96.0.{last}:80") };
    address.parse().unwrap()
}

fn listen(pod: &Pod, v6: bool, port: u16) -> TcpListener {
    let at = SocketAddr::new(pod.address(v6), port);
    pod.run(|| TcpListener::bind(at)).unwrap().unwrap()
}

fn connect(pod: &Pod, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = pod.run(|| TcpStream::connect_timeout(&to, DEADLINE)).unwrap()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually(|| {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, peer) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    (stream, peer)
}

/// The server speaks first, then the client, then each says that it is done and hears the other out.
fn converse(mut client: TcpStream, mut server: TcpStream) {
    let hear = |stream: &mut TcpStream, words: &[u8]| {
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, words);
    };
    server.write_all(b"welcome").unwrap();
    hear(&mut client, b"welcome");
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    hear(&mut server, b"question");
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "half-close arrives");
    server.write_all(b"answer").unwrap();
    drop(server);
    hear(&mut client, b"answer");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// A call from `client` to `to` arrives at `listener` from the client's own address.
fn arrives(client: &Pod, to: SocketAddr, listener: &TcpListener, from: IpAddr) {
    let stream = connect(client, to).unwrap();
    let (server, peer) = accept(listener);
    assert_eq!(peer.ip(), from, "source address of a call to {to}");
    assert!(SOURCE_PORTS.contains(&peer.port()), "{peer}");
    converse(stream, server);
}

fn is_reset(outcome: std::io::Result<TcpStream>) -> bool {
    let outcome = outcome.and_then(|mut stream| stream.read(&mut [0; 8]));
    matches!(outcome.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused))
}

fn policy(name: &str, action: Action, found: Match) -> Resource {
    let groups = vec![Group { rules: vec![Rule { matches: vec![found] }] }];
    let key = PolicyKey::new("shop", name);
    Resource::Policy(Policy { key, scope: Scope::Namespace, action, mode: Mode::Enforce, groups })
}

#[test]
fn captured_pods_talk_across_nodes_and_on_one_and_are_seen_with_their_own_address() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (web, near, far) = (lab.pod(1, "web").unwrap(), lab.pod(1, "near").unwrap(), lab.pod(2, "far").unwrap());
    let mut cluster = Cluster::new(&lab, 2);
    cluster.enrol(&[&web, &near, &far]);
    cluster.apply([service("near", 1), service("far", 2), service("web", 3)]);
    for v6 in [false, true] {
        let own = web.address(v6);
        for (server, last, security) in [(&near, 1, Security::SameNode), (&far, 2, Security::MutualTls)] {
            let listener = listen(server, v6, 8080);
            arrives(&web, SocketAddr::new(server.address(v6), 8080), &listener, own);
            arrives(&web, vip(last, v6), &listener, own);
            for _ in 0..2 {
                let at = SocketAddr::new(server.address(v6), 8080);
                let record =
                    cluster.record(|record| record.direction == Direction::Inbound && record.destination == at);
                assert_eq!((record.security, record.reason), (security, None), "{record:?}");
                assert_eq!(record.source_identity.unwrap().service_account(), "web");
            }
        }
        // Its own service: the agent delivers, the application sees the pod itself.
        let listener = listen(&web, v6, 8080);
        arrives(&web, vip(3, v6), &listener, own);
    }
    for pod in [&web, &near, &far] {
        eventually(|| cluster.relaying(pod) == 0);
    }
}

#[test]
fn resets_and_closed_ports_look_as_without_a_mesh() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (web, near, far) = (lab.pod(1, "web").unwrap(), lab.pod(1, "near").unwrap(), lab.pod(2, "far").unwrap());
    let mut cluster = Cluster::new(&lab, 2);
    cluster.enrol(&[&web, &near, &far]);
    for v6 in [false, true] {
        for server in [&near, &far] {
            let to = SocketAddr::new(server.address(v6), 8080);
            assert!(is_reset(connect(&web, to)), "nobody listens at {to}");
            cluster.record(|record| {
                record.direction == Direction::Outbound && record.reason == Some(Reason::ConnectRefused)
            });
            let listener = listen(server, v6, 8080);
            let mut client = connect(&web, to).unwrap();
            let (at_server, _) = accept(&listener);
            socket2::SockRef::from(&at_server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(at_server);
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let client = connect(&web, to).unwrap();
            let (mut at_server, _) = accept(&listener);
            socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(at_server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn plaintext_comes_in_and_goes_out_until_strict_mode_says_no() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (cart, stranger) = (lab.pod(1, "cart").unwrap(), lab.pod(2, "stranger").unwrap());
    let mut cluster = Cluster::new(&lab, 2);
    cluster.enrol(&[&cart]);
    cluster.apply([Resource::Workload(workload(&stranger, TunnelProtocol::None)), service("stranger", 4)]);
    for v6 in [false, true] {
        let listener = listen(&cart, v6, 8080);
        arrives(&stranger, SocketAddr::new(cart.address(v6), 8080), &listener, stranger.address(v6));
        let outside = listen(&stranger, v6, 8080);
        for to in [SocketAddr::new(stranger.address(v6), 8080), vip(4, v6)] {
            let client = connect(&cart, to).unwrap();
            let (server, peer) = accept(&outside);
            assert_eq!(peer.ip(), cart.address(v6));
            converse(client, server);
        }
        let closed = connect(&stranger, SocketAddr::new(cart.address(v6), 81));
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::ConnectionRefused, "a closed port refuses");
    }
    let listener = listen(&cart, false, 8080);
    let to = SocketAddr::new(cart.address(false), 8080);
    let mut live = connect(&stranger, to).unwrap();
    let _at_server = accept(&listener);
    cluster.apply([policy(
        "strict",
        Action::Deny,
        Match { not_principals: vec![StringMatch::Presence], ..Match::default() },
    )]);
    assert_eq!(live.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "cut while it lives");
    assert!(is_reset(connect(&stranger, to)));
    let record = cluster.record(|record| record.reason == Some(Reason::MtlsRequired));
    assert_eq!(record.source.ip(), stranger.address(false));
}

#[test]
fn policy_decides_by_identity_on_both_ways_and_cuts_what_is_live() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (web, near, far) = (lab.pod(1, "web").unwrap(), lab.pod(1, "near").unwrap(), lab.pod(2, "far").unwrap());
    let mut cluster = Cluster::new(&lab, 2);
    cluster.enrol(&[&web, &near, &far]);
    for server in [&near, &far] {
        let listener = listen(server, false, 8080);
        let to = SocketAddr::new(server.address(false), 8080);
        let only = |account: &str| {
            let principals = vec![StringMatch::Exact(format!("cluster.local/ns/shop/sa/{account}").into())];
            policy("only", Action::Allow, Match { principals, ..Match::default() })
        };
        cluster.apply([only("web")]);
        let mut live = connect(&web, to).unwrap();
        let (mut at_server, _) = accept(&listener);
        cluster.apply([only("somebody-else")]);
        assert_eq!(live.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(at_server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(is_reset(connect(&web, to)));
        let denied = cluster.record(|record| record.reason == Some(Reason::PolicyNotAllowed));
        assert_eq!(denied.source_workload.unwrap().name.as_ref(), "web");
    }
}

#[test]
fn many_connections_at_once_from_one_client_to_one_port() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (web, near, far) = (lab.pod(1, "web").unwrap(), lab.pod(1, "near").unwrap(), lab.pod(2, "far").unwrap());
    let mut cluster = Cluster::new(&lab, 2);
    cluster.enrol(&[&web, &near, &far]);
    for server in [&near, &far] {
        let listener = listen(server, false, 8080);
        let to = SocketAddr::new(server.address(false), 8080);
        // More than one tunnel carries (100), more than one batch of sockets (64).
        let clients: Vec<TcpStream> = (0..250).map(|_| connect(&web, to).unwrap()).collect();
        let servers: Vec<_> = (0..250).map(|_| accept(&listener)).collect();
        eventually(|| cluster.relaying(server) == 250);
        for (mut server, _) in servers {
            server.write_all(b"!").unwrap();
        }
        for (index, mut client) in clients.into_iter().enumerate() {
            let heard = client.read_exact(&mut [0]);
            assert!(heard.is_ok(), "connection {index} to {to}: {heard:?}");
        }
    }
}

#[test]
fn thousands_of_short_connections_leave_nothing_behind() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (web, near, far) = (lab.pod(1, "web").unwrap(), lab.pod(1, "near").unwrap(), lab.pod(2, "far").unwrap());
    let mut cluster = Cluster::new(&lab, 2);
    cluster.enrol(&[&web, &near, &far]);
    // More than there are source ports (4536), within the time that one rests after its use (60 s).
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for server in [&near, &far] {
        let listener = listen(server, false, 8080);
        let to = SocketAddr::new(server.address(false), 8080);
        let before = open_files();
        let web = &web;
        let call = &|| {
            for _ in 0..2000 {
                let mut stream = TcpStream::connect(to).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                assert_eq!(heard, b"!");
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..6000 {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.write_all(b"!").unwrap();
                }
            });
            for _ in 0..3 {
                scope.spawn(move || web.run(call).unwrap());
            }
        });
        eventually(|| cluster.relaying(server) == 0 && cluster.relaying(web) == 0);
        // Two workers may hold a batch of sockets for each pod, and a few tunnels.
        assert!(open_files() < before + 300, "{before} -> {}", open_files());
    }
}
