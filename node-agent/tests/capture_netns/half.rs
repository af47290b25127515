//! The whole capture half in-process, with a proxy that is a test: pods come and go, proxies die, rules are damaged.

use std::{net::TcpListener, sync::Arc, time::Duration};

use tokio::time::timeout;
use weft_node_agent::{
    capture::{
        socket::Ipv6,
        status::{PodState, PodStatus},
    },
    handover::{Event, Family, WorkerListeners},
    pods::PodSpec,
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
};

use crate::equipment::{DEADLINE, FAMILIES, accept, address, connect, elsewhere, installers, listen};
use crate::scene::{Half, outbound_arrives, run, spec};

#[test]
fn a_killed_proxy_refuses_nobody_and_its_successor_answers() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (pod, plain) = (lab.pod(1, "cart").unwrap(), lab.pod(1, "plain").unwrap());
    let installer = &installers()[0];
    run(async {
        let out = PodSpec { enrolled: false, ..spec(&plain) };
        let half = Half::start(&lab, vec![spec(&pod), out], false);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(2);
        let pods = proxy.snapshot().await;
        let [(name, listeners)] = pods.as_slice() else { panic!("{}", pods.len()) };
        assert_eq!((name.as_str(), listeners.len()), ("cart", 2));
        for worker in listeners {
            assert_eq!([worker.outbound.len(), worker.inbound.len(), worker.hbone.len()], [2, 2, 2]);
        }
        for family in FAMILIES {
            outbound_arrives(&pod, family, listeners);
            proxy.handle.want_sockets(&"cart".into(), family, 3);
            let Event::Sockets { uid, family: got, sockets } = proxy.next().await else { panic!("no sockets") };
            assert_eq!((uid.as_str(), got, sockets.len()), ("cart", family, 3));
        }
        drop((proxy, pods));

        let _waiting: Vec<_> = FAMILIES.map(|family| connect(&pod, elsewhere(family), DEADLINE).unwrap()).into();
        let mut successor = half.proxy(2);
        let pods = successor.snapshot().await;
        for index in 0..2 {
            let waiting = |worker: &WorkerListeners| accept(&worker.outbound[index], Duration::ZERO).is_some();
            assert!(pods[0].1.iter().any(waiting), "what waited in the kernel's queue is answered");
        }
        // An upgrade: the newer takes over, then the older is told to finish.
        let mut newer = half.proxy(2);
        newer.snapshot().await;
        assert!(matches!(successor.next().await, Event::Retire));
        half.end().await;
        assert_eq!(pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap(), 66, "the rules stay");
    });
}

#[test]
fn pods_join_leave_and_come_back_and_nothing_is_left() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (pod, other) = (lab.pod(1, "cart").unwrap(), lab.pod(1, "db").unwrap());
    let installer = &installers()[0];
    let count = || pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap();
    run(async {
        let half = Half::start(&lab, Vec::new(), false);
        let mut proxy = half.proxy(1);
        assert!(proxy.snapshot().await.is_empty());
        // An old plaintext connection holds the transition.
        let listener = listen(&other, Family::V4, 5432);
        let old = connect(&pod, address(&other, Family::V4, 5432), DEADLINE).unwrap();
        let server_side = accept(&listener, DEADLINE).unwrap();
        half.wanted.send_replace(Arc::new(vec![spec(&pod)]));
        half.until_state("cart", PodState::Enrolling).await;
        let Event::Pod { listeners, .. } = proxy.next().await else { panic!("no pod") };
        drop((old, server_side));
        half.until_state("cart", PodState::Captured).await;

        half.wanted.send_replace(Arc::new(vec![PodSpec { enrolled: false, ..spec(&pod) }]));
        assert!(matches!(proxy.next().await, Event::Release { .. }));
        half.until_state("cart", PodState::Releasing).await;
        proxy.handle.relaying(&"cart".into(), 1);
        // Its own calls are captured a while longer, until whom it calls has opened.
        let goes_direct = || {
            let _call = connect(&pod, address(&other, Family::V4, 5432), DEADLINE).unwrap();
            accept(&listener, Duration::from_millis(50)).is_some()
        };
        let begun = std::time::Instant::now();
        while !goes_direct() {
            assert!(begun.elapsed() < DEADLINE, "new connections go direct");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(count() > 0, "waits for what is relayed");
        while accept(&listeners[0].outbound[0], Duration::ZERO).is_some() {}
        proxy.handle.relaying(&"cart".into(), 0);
        assert!(matches!(proxy.next().await, Event::Remove { .. }));
        assert_eq!(count(), 0);

        half.wanted.send_replace(Arc::new(vec![spec(&pod)]));
        assert!(matches!(proxy.next().await, Event::Pod { .. }));
        half.until_state("cart", PodState::Captured).await;
        // Killed while captured, and un-enrolled before it is back: the next life cleans up.
        half.end().await;
        assert!(count() > 0);
        let next = Half::start(&lab, vec![PodSpec { enrolled: false, ..spec(&pod) }], true);
        // It leaves in order, so the proxy that lived through it is asked what it relays.
        while !matches!(proxy.next().await, Event::Release { .. }) {}
        proxy.handle.relaying(&"cart".into(), 0);
        let gone = async {
            while count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(2 * DEADLINE, gone).await.expect("leftovers are removed");
        next.wanted.send_replace(Arc::new(vec![spec(&pod)]));
        next.until_state("cart", PodState::Captured).await;
        next.end().await;
        assert_eq!(count(), 0, "--release-on-exit");
    });
}

#[test]
fn an_orderly_end_lets_go_of_pods_that_leave_and_keeps_the_others_closed() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (leaves, stays) = (lab.pod(1, "leaves").unwrap(), lab.pod(1, "stays").unwrap());
    let installer = &installers()[0];
    let count = |pod: &Pod| pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap();
    run(async {
        let half = Half::start(&lab, vec![spec(&leaves), spec(&stays)], false);
        half.until_state("leaves", PodState::Captured).await;
        half.until_state("stays", PodState::Captured).await;
        // Without a proxy that says what it relays, a release waits 5 s at least.
        half.wanted.send_replace(Arc::new(vec![PodSpec { enrolled: false, ..spec(&leaves) }, spec(&stays)]));
        half.until_state("leaves", PodState::Releasing).await;
        assert!(count(&leaves) > 0);
        half.end().await;
        assert_eq!(count(&leaves), 0);
        assert!(count(&stays) > 0);
    });
}

#[test]
fn a_restart_adopts_damage_is_repaired_and_a_broken_pod_harms_nobody() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (pod, busy) = (lab.pod(1, "cart").unwrap(), lab.pod(1, "busy").unwrap());
    let installer = &installers()[0];
    let holder: TcpListener = busy.run(|| TcpListener::bind("0.0.0.0:15008")).unwrap().unwrap();
    let nowhere = PodSpec { uid: "nowhere".into(), netns: Some("weft-not-there".into()), ..spec(&pod) };
    let unplaced = PodSpec { uid: "unplaced".into(), netns: None, ..spec(&pod) };
    let stranger = PodSpec { uid: "stranger".into(), addresses: vec!["10.9.9.9".parse().unwrap()], ..spec(&pod) };
    let all = vec![nowhere, unplaced, stranger, spec(&busy), spec(&pod)];
    run(async {
        let half = Half::start(&lab, all.clone(), false);
        half.until_state("cart", PodState::Captured).await;
        for (uid, words) in [("nowhere", "cannot open"), ("busy", "15008"), ("stranger", "none of the pod's addresses")]
        {
            let says = |pod: Option<&PodStatus>| {
                pod.is_some_and(|pod| pod.error.as_ref().is_some_and(|error| error.contains(words)))
            };
            half.until(uid, says).await;
        }
        half.until_state("unplaced", PodState::Waiting).await;
        half.until_state("busy", PodState::Closed).await;
        drop(holder);
        half.until_state("busy", PodState::Captured).await;

        let backend = format!("{:?}", installer.backend()).to_lowercase();
        let damage = format!("ip rule del pref 32764; iptables-{backend} -t mangle -F");
        assert!(pod.command("sh").args(["-c", &damage]).status().unwrap().success());
        half.until("cart", |pod| pod.is_some_and(|pod| pod.repairs > 0)).await;
        let file = lab.directory().join(weft_node_agent::capture::serve::STATUS_FILE);
        let shown = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(r#""repairs":1"#));
        let shown = async {
            while !shown() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(2 * DEADLINE, shown).await.expect("the state is in the file");

        let mut proxy = half.proxy(1);
        assert_eq!(proxy.snapshot().await.len(), 2);
        half.end().await;
        let next = Half::start(&lab, all, false);
        let pods = proxy.snapshot().await;
        assert_eq!(pods.len(), 2, "the client comes back by itself");
        for family in FAMILIES {
            outbound_arrives(&pod, family, &pods.iter().find(|(name, _)| name == "cart").unwrap().1);
        }
        next.end().await;
    });
}

#[test]
fn an_annotation_alone_neither_takes_nor_frees_another_pods_namespace() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "cart").unwrap();
    let installer = &installers()[0];
    // Both name the namespace of "cart" and have no address yet by which they could be told from it.
    let thief = PodSpec { uid: "thief".into(), addresses: Vec::new(), ..spec(&pod) };
    let sweeper = PodSpec { uid: "sweeper".into(), addresses: Vec::new(), enrolled: false, ..spec(&pod) };
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let whole = pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap();
        half.wanted.send_replace(Arc::new(vec![spec(&pod), thief, sweeper]));
        let refused = |pod: &PodStatus| {
            pod.failures > 1 && pod.error.as_ref().is_some_and(|error| error.contains("before the pod has an address"))
        };
        half.until("thief", |pod| pod.is_some_and(refused)).await;
        assert_eq!(pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap(), whole, "still captured");
        half.until("cart", |pod| pod.is_some_and(|pod| pod.repairs == 0 && pod.error.is_none())).await;
        let mut proxy = half.proxy(1);
        let names: Vec<String> = proxy.snapshot().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cart"], "only the owner's identity is offered");
        half.end().await;
    });
}
