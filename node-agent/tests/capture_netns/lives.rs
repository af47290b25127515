//! The capture half killed in every phase of joining and leaving, pods that are replaced or go meanwhile, and many at once.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::time::timeout;
use weft_node_agent::{
    capture::{
        course::Standing,
        install::Installer,
        mark::CapturePorts,
        ruleset::{Phase, Way},
        socket::Ipv6,
        status::PodState,
    },
    handover::{Event, Family},
    pods::PodSpec,
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
    wait,
};

use crate::equipment::{DEADLINE, QUIET, accept, address, connect, elsewhere, installers, listen, says};
use crate::scene::{Half, run, spec};

const PORT: u16 = 8080;

fn plain(pod: &Pod) -> PodSpec {
    PodSpec { enrolled: false, ..spec(pod) }
}

fn standing(pod: &Pod, installer: &Installer) -> Option<Standing> {
    pod.run(|| installer.standing(CapturePorts::default(), Ipv6::Usable)).unwrap().unwrap()
}

fn phase(pod: &Pod, installer: &Installer) -> Option<Phase> {
    match standing(pod, installer) {
        Some(Standing::Whole(phase)) => Some(phase),
        Some(Standing::Damaged) => panic!("damaged"),
        None => None,
    }
}

/// Who looks while a half is at work may see one table of the new phase and one of the old.
async fn until_phase(pod: &Pod, installer: &Installer, wanted: Option<Phase>) {
    let begun = Instant::now();
    while standing(pod, installer) != wanted.map(Standing::Whole) {
        assert!(begun.elapsed() < 2 * DEADLINE, "{:?} instead of {wanted:?}", standing(pod, installer));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection from a pod to another one that both hold.
fn old_connection(pod: &Pod, other: &Pod) -> (TcpStream, TcpStream) {
    let service = listen(other, Family::V4, PORT);
    let call = connect(pod, address(other, Family::V4, PORT), DEADLINE).unwrap();
    (call, accept(&service, DEADLINE).unwrap().0)
}

#[test]
fn killed_while_a_pod_joins_its_successor_goes_on_where_it_was() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let installer = &installers()[0];
    let (pod, other) = (lab.pod(1, "cart").unwrap(), lab.pod(2, "db").unwrap());
    let held = old_connection(&pod, &other);
    run(async {
        let slow = |settle: u64| {
            move |settings: &mut weft_node_agent::capture::serve::CaptureSettings| {
                settings.settle = Duration::from_secs(settle);
            }
        };
        let half = Half::start_with(&lab, vec![spec(&pod)], slow(600));
        until_phase(&pod, installer, Some(Phase::EnrolOut(Way::Direct))).await;
        let mut proxy = half.proxy(1);
        assert_eq!(proxy.snapshot().await.len(), 1);
        half.kill().await;
        assert_eq!(phase(&pod, installer), Some(Phase::EnrolOut(Way::Direct)), "rules outlive the half");
        let half = Half::start_with(&lab, vec![spec(&pod)], slow(600));
        assert_eq!(proxy.snapshot().await.len(), 1, "the proxy that lives is given its listeners again");
        assert_eq!(phase(&pod, installer), Some(Phase::EnrolOut(Way::Direct)));
        half.kill().await;
        let half = Half::start_with(&lab, vec![spec(&pod)], slow(0));
        until_phase(&pod, installer, Some(Phase::Enrol(Way::Direct))).await;
        half.kill().await;
        let half = Half::start_with(&lab, vec![spec(&pod)], slow(0));
        half.until_state("cart", PodState::Enrolling).await;
        assert_eq!(phase(&pod, installer), Some(Phase::Enrol(Way::Direct)), "still waits for the old connection");
        drop(held);
        half.until_state("cart", PodState::Captured).await;
        assert_eq!(phase(&pod, installer), Some(Phase::Steady));
        half.kill().await;
        let half = Half::start_with(&lab, vec![spec(&pod)], slow(600));
        half.until_state("cart", PodState::Captured).await;
        assert_eq!(phase(&pod, installer), Some(Phase::Steady), "a captured pod does not open again");
        half.end().await;
    });
}

/// Neither a connection that waits in a listener's queue nor the last bytes of one that is closed is known to any proxy.
#[test]
fn a_pod_that_leaves_waits_for_what_only_the_kernel_knows_of() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    let pod = lab.pod(1, "cart").unwrap();
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        let pods = proxy.snapshot().await;
        let mut call = connect(&pod, elsewhere(Family::V4), DEADLINE).unwrap();
        half.wanted.send_replace(Arc::new(vec![plain(&pod)]));
        assert!(matches!(proxy.next().await, Event::Release { .. }));
        proxy.handle.relaying(&"cart".into(), 0);
        until_phase(&pod, installer, Some(Phase::Release(Way::Relayed))).await;
        assert!(timeout(QUIET * 4, proxy.next()).await.is_err(), "one waits to be accepted");
        let (mut accepted, _) = accept(&pods[0].1[0].outbound[0], DEADLINE).expect("it lives");
        says(&mut call, &mut accepted);
        // More than the caller's window: the rest stays with the kernel of a socket that nobody holds.
        SockRef::from(&call).set_recv_buffer_size(4096).unwrap();
        let sent = fill(&accepted);
        // Listeners hand this down, and proxies take it back at an orderly end.
        SockRef::from(&accepted).set_linger(None).unwrap();
        drop(accepted);
        let early = timeout(QUIET * 4, proxy.next()).await;
        assert!(early.is_err(), "the caller has not read all: {early:?}, {sent}");
        let mut received = Vec::new();
        call.read_to_end(&mut received).expect("not reset");
        assert_eq!(received.len(), sent);
        drop(call);
        assert!(matches!(proxy.next().await, Event::Remove { .. }));
        until_phase(&pod, installer, None).await;
        half.end().await;
    });
}

/// Writes as much as the kernel takes.
fn fill(stream: &TcpStream) -> usize {
    let block = [0; 64 << 10];
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        match (&mut &*stream).write(&block) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What proxies relay must not break because the half that holds the rules was killed.
#[test]
fn killed_while_a_pod_leaves_its_successor_waits_for_what_is_relayed() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    let pod = lab.pod(1, "cart").unwrap();
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        let pods = proxy.snapshot().await;
        let _call = connect(&pod, elsewhere(Family::V4), DEADLINE).unwrap();
        let relayed = accept(&pods[0].1[0].outbound[0], DEADLINE).expect("captured");
        // Not selected any more while nobody was there to see it; then killed in each phase of leaving.
        half.kill().await;
        for settle in [600, 0, 0] {
            let half =
                Half::start_with(&lab, vec![plain(&pod)], |settings| settings.settle = Duration::from_secs(settle));
            assert!(matches!(proxy.next().await, Event::Pod { .. }));
            // Before or after the end of the snapshot, which does not wait for the rules of a release.
            let mut events = [proxy.next().await, proxy.next().await];
            events.sort_by_key(|event| matches!(event, Event::SnapshotSent));
            assert!(matches!(events, [Event::Release { .. }, Event::SnapshotSent]), "{events:?}");
            proxy.handle.relaying(&"cart".into(), 1);
            half.until_state("cart", PodState::Releasing).await;
            // The rules of ReleaseIn are those of EnrolOut.
            let phase = if settle > 0 { Phase::EnrolOut(Way::Relayed) } else { Phase::Release(Way::Relayed) };
            until_phase(&pod, installer, Some(phase)).await;
            half.kill().await;
        }
        let half = Half::start(&lab, vec![plain(&pod)], false);
        let told = [proxy.next().await, proxy.next().await, proxy.next().await];
        assert!(!told.iter().any(|event| matches!(event, Event::Remove { .. })), "{told:?}");
        drop(relayed);
        proxy.handle.relaying(&"cart".into(), 0);
        assert!(matches!(proxy.next().await, Event::Remove { .. }));
        until_phase(&pod, installer, None).await;
        half.end().await;
    });
}

/// Found by the simulation: rules whose policy rule and guard are gone close a pod, and were taken for none.
#[test]
fn a_pod_of_which_only_rules_are_left_while_nobody_looked_is_freed_all_the_same() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    let pod = lab.pod(1, "cart").unwrap();
    let unroute = "ip rule del pref 32764; ip -6 rule del pref 32764";
    run(async {
        for damage in [unroute.to_owned(), format!("{unroute}; nft delete table inet weft_guard || true")] {
            let half = Half::start(&lab, vec![spec(&pod)], false);
            half.until_state("cart", PodState::Captured).await;
            half.kill().await;
            assert!(pod.command("sh").args(["-c", &damage]).status().unwrap().success());
            assert_eq!(phase(&pod, installer), Some(Phase::Steady));
            let half = Half::start(&lab, vec![plain(&pod)], false);
            let left = || pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap();
            let freed = async {
                while left() > 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(2 * DEADLINE, freed).await.expect("its rules are taken out");
            half.end().await;
        }
    });
}

/// Found by the simulation: it was taken for a pod that nobody had captured, and opened for the time of joining.
#[test]
fn a_pod_that_only_its_guard_keeps_closed_while_nobody_looks_is_never_opened() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let installer = &installers()[0];
    let (pod, other) = (lab.pod(1, "cart").unwrap(), lab.pod(2, "db").unwrap());
    if !pod.command("sh").args(["-c", "nft list tables"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: without nft there is no guard of its own");
        return;
    }
    // It was called before, so that it is no new one.
    drop(old_connection(&other, &pod));
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        half.kill().await;
        let empty = "for family in iptables ip6tables; do for table in mangle filter; do \
                     $family-nft -t $table -F; $family-nft -t $table -X; done; done";
        assert!(pod.command("sh").args(["-c", empty]).status().unwrap().success());
        assert_eq!(pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap(), 0);
        assert_eq!(standing(&pod, installer), Some(Standing::Damaged));
        // One that joins would let plaintext in for ten minutes.
        let slow = |settings: &mut weft_node_agent::capture::serve::CaptureSettings| {
            settings.settle = Duration::from_secs(600);
        };
        let half = Half::start_with(&lab, vec![spec(&pod)], slow);
        until_phase(&pod, installer, Some(Phase::Steady)).await;
        half.end().await;
    });
}

#[test]
fn a_leaving_pod_is_not_freed_before_it_has_settled_however_short_the_grace() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    let pod = lab.pod(1, "cart").unwrap();
    run(async {
        let settle = Duration::from_secs(1);
        let half = Half::start_with(&lab, vec![spec(&pod)], |settings| settings.settle = settle);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        proxy.snapshot().await;
        half.wanted.send_replace(Arc::new(vec![plain(&pod)]));
        assert!(matches!(proxy.next().await, Event::Release { .. }));
        let begun = Instant::now();
        proxy.handle.relaying(&"cart".into(), 0);
        until_phase(&pod, installer, Some(Phase::Release(Way::Relayed))).await;
        assert!(matches!(proxy.next().await, Event::Remove { .. }));
        assert!(begun.elapsed() > settle + Duration::from_millis(500), "{:?}", begun.elapsed());
        half.end().await;
    });
}

#[test]
fn a_namespace_that_is_made_anew_under_the_same_name_is_captured_and_a_pod_that_goes_harms_nobody() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    let (pod, brief) = (lab.pod(1, "cart").unwrap(), lab.pod(1, "brief").unwrap());
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        proxy.snapshot().await;
        // As after a reboot, or a new sandbox: the same pod, the same name, another namespace.
        let anew = "ip netns del $N; ip netns add $N; ip -n $N link set lo up; ip -n $N addr add $A/32 dev lo";
        let anew = anew.replace("$N", &pod.netns).replace("$A", &pod.v4.to_string());
        assert!(std::process::Command::new("sh").args(["-c", &anew]).status().unwrap().success());
        assert!(matches!(proxy.next().await, Event::Pod { .. }), "new listeners");
        wait::until(DEADLINE, "rules in the new namespace", || {
            standing(&pod, installer) == Some(Standing::Whole(Phase::Steady))
        })
        .unwrap();
        // Deleted while it joins.
        half.wanted.send_replace(Arc::new(vec![spec(&pod), spec(&brief)]));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(std::process::Command::new("ip").args(["netns", "del", &brief.netns]).status().unwrap().success());
        half.wanted.send_replace(Arc::new(vec![spec(&pod)]));
        half.until("brief", |pod| pod.is_none()).await;
        half.until_state("cart", PodState::Captured).await;
        half.end().await;
    });
}

#[test]
#[ignore = "half a minute: makes 200 pods; prints how long their capture takes"]
fn two_hundred_pods_at_once() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pods: Vec<Pod> = (0..200).map(|number| lab.pod(1, &format!("p{number}")).unwrap()).collect();
    run(async {
        let begun = Instant::now();
        let half = Half::start_with(&lab, pods.iter().map(spec).collect(), |settings| {
            settings.audit_interval = Duration::from_secs(10);
        });
        let mut proxy = half.proxy(1);
        let all = async {
            let captured = || half.status.get().pods.values().filter(|pod| pod.state == PodState::Captured).count();
            while captured() < pods.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(120), all).await.expect("all captured");
        println!("200 pods captured after {:?}", begun.elapsed());
        assert_eq!(proxy.snapshot().await.len(), 200);
        half.end().await;
    });
}
