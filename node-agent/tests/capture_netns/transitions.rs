//! Pods that join and leave while they talk (`docs/capture.md`, "Connections that are there before a change").

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read},
    net::TcpStream,
};

use weft_node_agent::{
    capture::{
        connections,
        course::Standing,
        join::Joining,
        ruleset::{Phase, Way},
        socket::{Ipv6, Listeners},
    },
    handover::{Family, ListenerRole},
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
};

use crate::equipment::{Captured, DEADLINE, FAMILIES, accept, address, connect, installers, listen, says};

/// A connection from one pod to another; the listener stays open.
fn pair(from: &Pod, to: &Pod, family: Family, port: u16) -> (TcpStream, TcpStream, std::net::TcpListener) {
    let listener = listen(to, family, port);
    let client = connect(from, address(to, family, port), DEADLINE).unwrap();
    let (server, _) = accept(&listener, DEADLINE).unwrap();
    (client, server, listener)
}

#[test]
fn permissive_joining_lets_old_connections_end_and_captures_new_ones() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        for family in FAMILIES {
            let (mut out_here, mut out_there, _service) = pair(&pod, &peer, family, 8001);
            let (mut in_there, mut in_here, _application) = pair(&peer, &pod, family, 8002);
            assert_eq!(pod.run(|| connections::of_application(Ipv6::Usable)).unwrap().unwrap().len(), 2);

            let captured = Captured::new(&pod, installer, Phase::Enrol(Way::Direct));
            for _ in 0..2 {
                says(&mut out_there, &mut out_here);
                says(&mut out_here, &mut out_there);
                says(&mut in_here, &mut in_there);
                says(&mut in_there, &mut in_here);
            }
            let mut new_out = connect(&pod, address(&peer, family, 8001), DEADLINE).unwrap();
            let (mut taken_out, _) = captured.accept(ListenerRole::Outbound, family, DEADLINE).unwrap();
            let mut new_in = connect(&peer, address(&pod, family, 8002), DEADLINE).unwrap();
            let (mut taken_in, _) = captured.accept(ListenerRole::Inbound, family, DEADLINE).unwrap();
            drop((out_here, out_there, in_here, in_there));

            captured.change(Phase::Steady);
            says(&mut new_out, &mut taken_out);
            says(&mut taken_out, &mut new_out);
            says(&mut new_in, &mut taken_in);
            says(&mut taken_in, &mut new_in);
            captured.remove();
        }
    }
}

/// Conntrack begins no connection with a FIN or RST: an old connection that was silent since the pod joined must still end
/// on both sides.
#[test]
fn old_connections_that_are_silent_until_they_end_do_end() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        for (family, phase) in FAMILIES
            .into_iter()
            .flat_map(|family| [(family, Phase::EnrolOut(Way::Direct)), (family, Phase::Enrol(Way::Direct))])
        {
            let calls: Vec<_> = [(&pod, &peer), (&peer, &pod)]
                .into_iter()
                .flat_map(|(from, to)| (8001..8005).map(move |port| pair(from, to, family, port)))
                .collect();
            let captured = Captured::new(&pod, installer, phase);
            for (number, (client, server, _listener)) in calls.into_iter().enumerate() {
                let (ending, mut staying) = if number % 2 == 0 { (client, server) } else { (server, client) };
                let reset = number % 4 >= 2;
                if reset {
                    socket2::SockRef::from(&ending).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                }
                drop(ending);
                let end = staying.read(&mut [0; 1]).map_err(|error| error.kind());
                let expected = if reset { Err(ErrorKind::ConnectionReset) } else { Ok(0) };
                assert_eq!(end, expected, "{:?} {family:?} {phase:?} {number}", installer.backend());
            }
            let left = || pod.run(|| connections::of_application(Ipv6::Usable)).unwrap().unwrap();
            weft_testkit::wait::until(DEADLINE, "the end of all old connections", || left().is_empty()).unwrap();
            captured.remove();
        }
    }
}

/// Policies at the destination must not meet callers that have not heard yet: the way in opens first and closes last.
#[test]
fn the_first_step_of_joining_and_leaving_lets_new_plaintext_in_and_captures_calls_out() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        for family in FAMILIES {
            let (_service, application) = (listen(&peer, family, 8001), listen(&pod, family, 8002));
            for (first, second) in [
                (Phase::EnrolOut(Way::Direct), Phase::Enrol(Way::Direct)),
                (Phase::ReleaseIn(Way::Relayed), Phase::Release(Way::Relayed)),
            ] {
                let captured = Captured::new(&pod, installer, Phase::Steady);
                captured.change(first);
                let mut new_out = connect(&pod, address(&peer, family, 8001), DEADLINE).unwrap();
                let (mut taken_out, _) = captured.accept(ListenerRole::Outbound, family, DEADLINE).expect("captured");
                let mut new_in = connect(&peer, address(&pod, family, 8002), DEADLINE).unwrap();
                let (mut at_application, _) = accept(&application, DEADLINE).expect("direct");
                captured.change(second);
                for _ in 0..2 {
                    says(&mut new_out, &mut taken_out);
                    says(&mut taken_out, &mut new_out);
                    says(&mut new_in, &mut at_application);
                    says(&mut at_application, &mut new_in);
                }
                captured.remove();
            }
        }
    }
}

#[test]
fn leaving_keeps_relayed_connections_and_sends_new_ones_direct() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        for family in FAMILIES {
            let captured = Captured::new(&pod, installer, Phase::Steady);
            let (service, application) = (listen(&peer, family, 8001), listen(&pod, family, 8002));
            let mut old_out = connect(&pod, address(&peer, family, 8001), DEADLINE).unwrap();
            let (mut taken_out, _) = captured.accept(ListenerRole::Outbound, family, DEADLINE).unwrap();
            let mut old_in = connect(&peer, address(&pod, family, 8002), DEADLINE).unwrap();
            let (mut taken_in, _) = captured.accept(ListenerRole::Inbound, family, DEADLINE).unwrap();

            captured.change(Phase::Release(Way::Relayed));
            for _ in 0..2 {
                says(&mut old_out, &mut taken_out);
                says(&mut taken_out, &mut old_out);
                says(&mut old_in, &mut taken_in);
                says(&mut taken_in, &mut old_in);
            }
            let mut new_out = connect(&pod, address(&peer, family, 8001), DEADLINE).unwrap();
            let (mut at_service, _) = accept(&service, DEADLINE).expect("direct");
            let mut new_in = connect(&peer, address(&pod, family, 8002), DEADLINE).unwrap();
            let (mut at_application, _) = accept(&application, DEADLINE).expect("direct");
            drop((old_out, taken_out, old_in, taken_in));

            captured.remove();
            says(&mut new_out, &mut at_service);
            says(&mut at_service, &mut new_out);
            says(&mut new_in, &mut at_application);
            says(&mut at_application, &mut new_in);
        }
    }
}

/// Every kind of connection that a pod can have goes its way through every change of mind: older than its first joining, begun
/// while it was joining, begun while it was leaving.
#[test]
fn a_pod_that_leaves_before_old_connections_have_ended_and_joins_again_breaks_none() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        let begins = [(Phase::Enrol(Way::Direct), Way::Direct), (Phase::Steady, Way::Relayed)];
        for (family, (begin, older)) in FAMILIES.into_iter().flat_map(|family| begins.map(|begin| (family, begin))) {
            // Without a mesh, and only where such connections may live when the pod begins to leave.
            let calls = [(&pod, &peer, 8001), (&peer, &pod, 8002)];
            let old = calls.map(|(from, to, port)| (older == Way::Direct).then(|| pair(from, to, family, port)));
            let (mut living, mut services): (Vec<_>, Vec<_>) =
                old.into_iter().flatten().map(|(client, server, service)| ((client, server), service)).unzip();
            let captured = Captured::new(&pod, installer, begin);
            if older == Way::Relayed {
                services.extend([listen(&peer, family, 8001), listen(&pod, family, 8002)]);
            }
            let call = |phase: Phase, out: bool| {
                let (from, to, port) = if out { calls[0] } else { calls[1] };
                let relayed = match phase {
                    Phase::Steady | Phase::Enrol(_) => true,
                    Phase::EnrolOut(_) | Phase::ReleaseIn(_) => out,
                    Phase::Release(_) => false,
                };
                let client = connect(from, address(to, family, port), DEADLINE).unwrap();
                let role = if out { ListenerRole::Outbound } else { ListenerRole::Inbound };
                let server = if relayed {
                    captured.accept(role, family, DEADLINE)
                } else {
                    accept(&services[usize::from(!out)], DEADLINE)
                };
                (client, server.unwrap_or_else(|| panic!("{phase:?} {family:?} out {out}")).0)
            };
            living.extend([call(begin, true), call(begin, false)]);
            let course =
                [Phase::ReleaseIn, Phase::Release, Phase::EnrolOut, Phase::Enrol, Phase::ReleaseIn, Phase::Release];
            for phase in course.map(|phase| phase(older)) {
                captured.change(phase);
                living.extend([call(phase, true), call(phase, false)]);
                for (client, server) in &mut living {
                    says(client, server);
                    says(server, client);
                }
            }
            captured.remove();
        }
    }
}

#[test]
fn resets_reach_both_sides_but_not_calls_of_a_pod_to_itself() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let pod = lab.pod(1, "pod").unwrap();
    let peer = lab.pod(2, "peer").unwrap();
    for family in FAMILIES {
        let (mut here, mut there, _service) = pair(&pod, &peer, family, 8001);
        let own = listen(&pod, family, 8003);
        let mut own_here = connect(&pod, address(&pod, family, 8003), DEADLINE).unwrap();
        let (mut own_there, _) = accept(&own, DEADLINE).unwrap();
        let count = pod.run(|| connections::reset(&connections::of_application(Ipv6::Usable).unwrap())).unwrap();
        assert_eq!(count.unwrap(), 1);
        let kind = |stream: &mut TcpStream| stream.read(&mut [0; 1]).unwrap_err().kind();
        assert_eq!(kind(&mut here), ErrorKind::ConnectionAborted);
        assert_eq!(kind(&mut there), ErrorKind::ConnectionReset);
        says(&mut own_here, &mut own_there);
    }
}

#[test]
fn strict_joining_resets_and_captures_at_once_and_a_second_join_spares_relayed_connections() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    for (number, installer) in installers().iter().enumerate() {
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let peer = lab.pod(2, &format!("peer{number}")).unwrap();
        let listeners = pod.run(|| Listeners::open(1, &FAMILIES)).unwrap().unwrap();
        let joining = Joining { installer: installer.clone(), ports: listeners.ports, ipv6: Ipv6::Usable };
        let join = |strict, standing| pod.run(|| joining.join(strict, standing)).unwrap().unwrap();
        let old: Vec<_> = FAMILIES.map(|family| pair(&pod, &peer, family, 8001)).into();
        assert_eq!(join(true, None), (Phase::Steady, BTreeSet::new()));
        for (mut here, mut there, _) in old {
            assert_eq!(here.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert_eq!(there.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        let captured = Captured { installer: installer.clone(), listeners, pod: pod.clone() };
        for family in FAMILIES {
            let mut relayed = connect(&pod, address(&peer, family, 9), DEADLINE).unwrap();
            let (mut taken, _) = captured.accept(ListenerRole::Outbound, family, DEADLINE).unwrap();
            // As after a restart of the capture half while the proxy lives on.
            let standing = pod.run(|| installer.standing(joining.ports, Ipv6::Usable)).unwrap().unwrap();
            assert_eq!(standing, Some(Standing::Whole(Phase::Steady)));
            for strict in [true, false] {
                assert_eq!(join(strict, standing), (Phase::Steady, BTreeSet::new()));
                says(&mut relayed, &mut taken);
                says(&mut taken, &mut relayed);
            }
        }
        // Patience has an end: what is left of the old connections is reset, and the pod is captured for good.
        captured.remove();
        let (mut here, mut there, _service) = pair(&pod, &peer, FAMILIES[0], 8004);
        assert_eq!(join(false, None), (Phase::EnrolOut(Way::Direct), BTreeSet::new()));
        let (phase, old) = pod.run(|| joining.close(Way::Direct)).unwrap().unwrap();
        assert_eq!((phase, old.len()), (Phase::Enrol(Way::Direct), 1));
        let wait = |give_up| pod.run(|| joining.wait_for_old(&old, give_up)).unwrap().unwrap();
        assert_eq!(wait(false), old);
        says(&mut here, &mut there);
        assert!(wait(true).is_empty());
        assert_eq!(there.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let standing = pod.run(|| installer.standing(joining.ports, Ipv6::Usable)).unwrap().unwrap();
        assert_eq!(standing, Some(Standing::Whole(Phase::Steady)));
    }
}
