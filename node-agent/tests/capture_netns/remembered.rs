//! What conntrack remembers of connections that have ended must not meet later ones with the same ports
//! (`docs/decisions/0029-what-conntrack-remembers.md`).

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use weft_node_agent::{
    capture::{
        conntrack,
        ruleset::{Phase, Way},
    },
    handover::ListenerRole,
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
};

use crate::equipment::{Captured, DEADLINE, FAMILIES, accept, address, installers, listen, says};

const CLIENT_PORT: u16 = 40_001;

/// A connection whose client has the same port each time.
fn call(from: &Pod, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    from.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(from.address(to.is_ipv6()), CLIENT_PORT).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(socket.into())
    })
    .unwrap()
}

/// Closed by the server before the pod joins, and by the client afterwards: of the whole connection conntrack sees the last packet alone, and
/// takes it for the first one of a connection from the server to the client.
fn leave_a_stray(from: &Pod, listener: &TcpListener, join: impl FnOnce() -> Captured) -> Captured {
    let client = call(from, listener.local_addr().unwrap(), DEADLINE).unwrap();
    let (mut server, _) = accept(listener, DEADLINE).unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    let captured = join();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    // The last packet is the acknowledgement of this end; a reset of the socket that is in TIME_WAIT would be one more.
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    captured
}

#[test]
fn a_stray_is_forgotten_and_the_connection_with_its_ports_goes_one_way() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        for (family, out) in FAMILIES.into_iter().flat_map(|family| [(family, true), (family, false)]) {
            let (from, to) = if out { (&pod, &peer) } else { (&peer, &pod) };
            let listener = listen(to, family, 8001);
            let phase = Phase::Enrol(Way::Direct);
            let captured = leave_a_stray(from, &listener, || Captured::new(&pod, installer, phase));
            let strays = || pod.run(conntrack::forget_strays).unwrap().unwrap();
            // Without that the first packet is thrown away, and not half of the connection.
            let early = call(from, address(to, family, 8001), Duration::from_millis(200));
            assert!(early.is_err(), "{family:?} out {out}: no stray was made, so nothing is proved");
            assert_eq!(strays(), 1, "{family:?} out {out}");
            assert_eq!(strays(), 0, "{family:?} out {out}");
            let mut client = call(from, address(to, family, 8001), DEADLINE).unwrap();
            let role = if out { ListenerRole::Outbound } else { ListenerRole::Inbound };
            let (mut taken, _) = captured.accept(role, family, DEADLINE).expect("captured");
            says(&mut client, &mut taken);
            says(&mut taken, &mut client);
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop((client, taken));
            captured.remove();
        }
    }
}

/// A connection that lives when the pod has joined for good ends unseen: conntrack is off. What was marked for it is not another one's.
#[test]
fn what_an_earlier_transition_marked_is_forgotten() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        for family in FAMILIES {
            let listener = listen(&peer, family, 8001);
            let captured = Captured::new(&pod, installer, Phase::Enrol(Way::Direct));
            let client = call(&pod, address(&peer, family, 8001), DEADLINE).unwrap();
            let (taken, _) = captured.accept(ListenerRole::Outbound, family, DEADLINE).expect("captured");
            captured.remove();
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop((client, taken));
            // Direct, with the very same addresses; then the pod joins again.
            let mut client = call(&pod, address(&peer, family, 8001), DEADLINE).unwrap();
            let (mut server, _) = accept(&listener, DEADLINE).unwrap();
            pod.run(conntrack::forget_marked).unwrap().unwrap();
            captured.change(Phase::Enrol(Way::Direct));
            says(&mut client, &mut server);
            says(&mut server, &mut client);
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop((client, server));
            captured.remove();
        }
    }
}
