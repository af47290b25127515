//! Connections in and out of a captured pod in the steady phase, and what half-dead states let through.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use weft_node_agent::{capture::ruleset::Phase, handover::ListenerRole};
use weft_testkit::{enter_or_skip, netns::Lab};

use crate::equipment::{
    Captured, DEADLINE, FAMILIES, accept, address, connect, dial, elsewhere, installers, listen, refused,
};

#[test]
fn both_directions_keep_their_addresses() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let client = lab.pod(2, &format!("client{number}")).unwrap();
        let captured = Captured::new(&pod, installer, Phase::Steady);
        for family in FAMILIES {
            let mut outgoing = connect(&pod, elsewhere(family), DEADLINE).unwrap();
            let (mut taken, peer) = captured.accept(ListenerRole::Outbound, family, DEADLINE).unwrap();
            assert_eq!(taken.local_addr().unwrap(), elsewhere(family), "the original destination");
            assert_eq!(peer, outgoing.local_addr().unwrap());
            talk(&mut outgoing, &mut taken);

            let application = listen(&pod, family, 8080);
            let mut incoming = connect(&client, address(&pod, family, 8080), DEADLINE).unwrap();
            let (mut taken, peer) = captured.accept(ListenerRole::Inbound, family, DEADLINE).unwrap();
            assert_eq!(taken.local_addr().unwrap(), address(&pod, family, 8080));
            assert_eq!(peer, incoming.local_addr().unwrap());
            talk(&mut incoming, &mut taken);

            let from = SocketAddr::new(peer.ip(), 61000);
            let mut delivered: std::net::TcpStream =
                dial(&pod, family, from, address(&pod, family, 8080)).unwrap().into();
            let (mut at_application, peer) = accept(&application, DEADLINE).unwrap();
            assert_eq!(peer, from, "the application sees the client's address");
            talk(&mut delivered, &mut at_application);

            let mut hbone = connect(&client, address(&pod, family, 15008), DEADLINE).unwrap();
            let (mut taken, _) = captured.accept(ListenerRole::Hbone, family, DEADLINE).unwrap();
            talk(&mut hbone, &mut taken);
        }
        let conntrack = pod.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack")).unwrap();
        if let Ok(entries) = conntrack {
            assert_eq!(entries.lines().count(), 0, "no conntrack in the steady phase");
        }
    }
}

fn talk(one: &mut std::net::TcpStream, other: &mut std::net::TcpStream) {
    let mut heard = [0; 4];
    one.set_read_timeout(Some(DEADLINE)).unwrap();
    one.write_all(b"ping").unwrap();
    other.read_exact(&mut heard).unwrap();
    other.write_all(b"pong").unwrap();
    one.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"pong");
}

/// The rules for refusals rest on a reset having no owner, so this pins them.
#[test]
fn closed_port_refuses_and_refused_dial_is_seen() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let client = lab.pod(2, &format!("client{number}")).unwrap();
        let _captured = Captured::new(&pod, installer, Phase::Steady);
        for family in FAMILIES {
            let closed = connect(&client, address(&pod, family, 9), DEADLINE);
            assert!(refused(closed), "{:?} {family:?}: a closed port refuses", installer.backend());
            let from = address(&client, family, 61234);
            let dialled = dial(&pod, family, from, address(&pod, family, 9));
            let kind = dialled.map(drop).map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::ConnectionRefused), "{:?} {family:?}", installer.backend());
            let own = pod.run(|| std::net::TcpStream::connect(address(&pod, family, 9))).unwrap();
            assert!(refused(own), "a pod's call to itself is not captured");
        }
    }
}
