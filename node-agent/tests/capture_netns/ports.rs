//! Ports that are in use already, by the application or by us: the cases behind `docs/capture.md`, as far as they
//! are about sockets.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use weft_node_agent::{
    capture::ruleset::Phase,
    handover::{Family, ListenerRole},
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
};

use crate::equipment::{
    Captured, DEADLINE, FAMILIES, QUIET, accept, address, connect, dial, elsewhere, installers, listen,
};

/// An application that binds and listens, with or without SO_REUSEADDR.
fn application(pod: &Pod, at: SocketAddr, reuse: bool) -> Result<Socket, ErrorKind> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(reuse)?;
        socket.bind(&SockAddr::from(at))?;
        socket.listen(8).map(|()| socket)
    };
    pod.run(bind).unwrap().map_err(|error| error.kind())
}

fn wildcard(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

#[test]
fn an_application_restarts_as_without_a_mesh() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (pod, client) = (lab.pod(1, "pod").unwrap(), lab.pod(2, "client").unwrap());
    let captured = Captured::new(&pod, &installers()[0], Phase::Steady);
    for family in FAMILIES {
        let at = address(&pod, family, 8080);
        let first = application(&pod, at, true).unwrap();
        let _incoming = connect(&client, at, DEADLINE).unwrap();
        let _relayed = captured.accept(ListenerRole::Inbound, family, DEADLINE).unwrap();
        drop(first);
        assert_eq!(application(&pod, at, false).map(drop), Err(ErrorKind::AddrInUse), "without SO_REUSEADDR");
        application(&pod, at, true).expect("a relayed connection does not keep it from its port");

        // HBONE leaves no socket of ours on the application's port.
        let at = address(&pod, family, 8081);
        drop(application(&pod, at, false).unwrap());
        let _tunnel = connect(&client, address(&pod, family, 15008), DEADLINE).unwrap();
        let _taken = captured.accept(ListenerRole::Hbone, family, DEADLINE).unwrap();
        application(&pod, at, false).expect("nothing of ours is there");
    }
}

#[test]
fn the_meshs_ports_belong_to_the_mesh() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (pod, client) = (lab.pod(1, "pod").unwrap(), lab.pod(2, "client").unwrap());
    let captured = Captured::new(&pod, &installers()[0], Phase::Steady);
    for family in FAMILIES {
        for reuse in [true, false] {
            for port in [15001, 15006, 15008] {
                let outcome = application(&pod, wildcard(family, port), reuse).map(drop);
                assert_eq!(outcome, Err(ErrorKind::AddrInUse), "{family:?} {port} {reuse}");
            }
            let outcome = application(&pod, address(&pod, family, 15008), reuse).map(drop);
            assert_eq!(outcome, Err(ErrorKind::AddrInUse));
        }
        let _own = application(&pod, address(&pod, family, 15001), false).expect("on the pod's address it is free");
        let _incoming = connect(&client, address(&pod, family, 15001), DEADLINE).unwrap();
        let (taken, _) = captured.accept(ListenerRole::Inbound, family, DEADLINE).expect("and captured like any other");
        assert_eq!(taken.local_addr().unwrap().port(), 15001);
    }
}

#[test]
fn dial_ports_are_chosen_and_used_again() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (pod, client) = (lab.pod(1, "pod").unwrap(), lab.pod(2, "client").unwrap());
    let captured = Captured::new(&pod, &installers()[0], Phase::Steady);
    for family in FAMILIES {
        let (one, two) = (listen(&pod, family, 8001), listen(&pod, family, 8002));
        let from = address(&client, family, 62000);
        let first = dial(&pod, family, from, address(&pod, family, 8001)).unwrap();
        let (mut accepted, _) = accept(&one, DEADLINE).unwrap();
        dial(&pod, family, from, address(&pod, family, 8002)).expect("the same port to another application");
        assert!(accept(&two, DEADLINE).is_some());
        let again = dial(&pod, family, from, address(&pod, family, 8001)).map_err(|error| error.kind()).map(drop);
        assert_eq!(again, Err(ErrorKind::AddrNotAvailable), "the same four: take the next port");

        assert_eq!(application(&pod, wildcard(family, 62000), false).map(drop), Err(ErrorKind::AddrInUse));
        drop(application(&pod, address(&pod, family, 62000), true).unwrap());

        // The dial side closes first, so TIME_WAIT is ours; an explicit port is free again at once.
        TcpStream::from(first).shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);
        drop(accepted);
        let end = std::time::Instant::now() + DEADLINE;
        while dial(&pod, family, from, address(&pod, family, 8001)).is_err() {
            assert!(std::time::Instant::now() < end, "the port is not used again");
            crate::equipment::pause();
        }

        // Why dial ports are not the client's own: its plaintext connection has the same four.
        let _incoming = connect(&client, address(&pod, family, 8001), DEADLINE).unwrap();
        let (_relayed, peer) = captured.accept(ListenerRole::Inbound, family, DEADLINE).unwrap();
        let hangs = pod.run(|| weft_node_agent::capture::socket::dial_sockets(family, 1)).unwrap().unwrap().remove(0);
        let hangs = Socket::from(hangs);
        hangs.bind(&SockAddr::from(peer)).unwrap();
        let outcome = hangs.connect_timeout(&SockAddr::from(address(&pod, family, 8001)), QUIET);
        assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
    }
}

#[test]
fn only_what_stays_in_the_pod_has_another_congestion_control_than_the_node_wants() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (pod, client) = (lab.pod(1, "pod").unwrap(), lab.pod(2, "client").unwrap());
    let captured = Captured::new(&pod, &installers()[0], Phase::Steady);
    let control = |socket: &TcpStream| String::from_utf8(SockRef::from(socket).tcp_congestion().unwrap()).unwrap();
    for family in FAMILIES {
        let from_the_pod = connect(&pod, elsewhere(family), DEADLINE).unwrap();
        let (outbound, _) = captured.accept(ListenerRole::Outbound, family, DEADLINE).unwrap();
        assert_eq!(control(&outbound).trim_end_matches('\0'), "reno");
        let _application = listen(&pod, family, 8080);
        let _from_the_wire = connect(&client, address(&pod, family, 8080), DEADLINE).unwrap();
        let (inbound, _) = captured.accept(ListenerRole::Inbound, family, DEADLINE).unwrap();
        assert_eq!(control(&inbound), control(&from_the_pod), "its other end is on the wire: as the node is set");
    }
}
