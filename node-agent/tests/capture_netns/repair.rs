//! Rules, routes, settings and listeners altered by hand, one after the other: the guards hold, the auditor repairs and
//! says so. Audits by the clock are an hour apart here, so a repair proves that the change was announced.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use weft_node_agent::capture::{
    program::Backend,
    ruleset::Phase,
    socket::Ipv6,
    status::{PodState, PodStatus},
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
    wait,
    wire::Capture,
};

use crate::equipment::{DEADLINE, FAMILIES, address, installers, listen, wanted};
use crate::scene::{Half, outbound_arrives, run, spec};

/// What the pod would say in plaintext.
const MARKER: &str = "REPAIR-MARKER";
const PORT: u16 = 8080;
/// One attempt of the pod to get something out: many in the life of each damage.
const ATTEMPT: Duration = Duration::from_millis(20);
const NO_CLOCK: Duration = Duration::from_secs(3600);

/// What somebody does by hand, with the program's names put in, and what the auditor says of it.
const DAMAGE: [(&str, &str); 15] = [
    ("$4 -t mangle -F", "mangle"),
    ("$6 -t mangle -F", "mangle"),
    ("$4 -t filter -F", "filter"),
    ("$6 -t filter -F", "filter"),
    ("for t in mangle filter; do $4 -t $t -F; $4 -t $t -X; $6 -t $t -F; $6 -t $t -X; done", "missing_chain"),
    ("$4 -t mangle -D WEFT_OUT 1", "wrong_rules"),
    ("$4 -t mangle -D WEFT_POST 3", "wrong_rules"),
    ("$6 -t mangle -D OUTPUT 1", "wrong_jumps"),
    ("$4 -t mangle -I WEFT_PRE -j RETURN", "wrong_rules"),
    ("$4 -t filter -I OUTPUT -j ACCEPT; $4 -t filter -I INPUT -j ACCEPT", "wrong_jumps"),
    ("nft delete table inet weft_guard", "\"guard\":true"),
    ("ip rule del pref 32764; ip -6 rule del pref 32764", "routing"),
    ("ip route flush table 100; ip -6 route flush table 100", "routing"),
    ("ip link set lo down; ip link set lo up", "routing"),
    (
        "for f in all lo eth0; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done; \
         for f in all lo eth0; do echo 0 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done",
        "routing",
    ),
];

/// Calls of the pod to somebody else, again and again in both families; nobody serves them. Each says the marker as soon as
/// it can.
struct Caller {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<u64>>,
}

impl Caller {
    fn start(pod: &Pod, other: &Pod) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let call = |family| {
            let (pod, to, stop) = (pod.clone(), address(other, family, PORT), stop.clone());
            move || {
                pod.run(|| {
                    let mut calls = 0;
                    while !stop.load(Ordering::Relaxed) {
                        calls += 1;
                        let Ok(mut stream) = TcpStream::connect_timeout(&to, ATTEMPT) else { continue };
                        let _unheard = stream.write_all(MARKER.as_bytes());
                        let _unanswered = stream.set_read_timeout(Some(ATTEMPT)).and_then(|()| stream.read(&mut [0]));
                    }
                    calls
                })
                .unwrap()
            }
        };
        let threads = FAMILIES.map(|family| thread::spawn(call(family))).into();
        Self { stop, threads }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

fn shell(pod: &Pod, backend: Backend, commands: &str) {
    let infix = format!("{backend:?}").to_lowercase();
    let commands = commands.replace("$4", &format!("iptables-{infix}")).replace("$6", &format!("ip6tables-{infix}"));
    let output = pod.command("sh").args(["-c", &commands]).env("XTABLES_LOCKFILE", "/run/l").output().unwrap();
    assert!(output.status.success(), "{commands}: {output:?}");
}

fn repairs(pod: Option<&PodStatus>) -> u64 {
    pod.map_or(0, |pod| pod.repairs)
}

#[test]
fn whatever_is_changed_by_hand_is_repaired_at_once_and_nothing_gets_out_meanwhile() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let installer = &installers()[0];
    if installer.backend() == Backend::Legacy {
        eprintln!("SKIPPED: iptables-legacy announces nothing");
        return;
    }
    let (pod, other) = (lab.pod(1, "cart").unwrap(), lab.pod(2, "other").unwrap());
    let services = FAMILIES.map(|family| listen(&other, family, PORT));
    run(async {
        let half = Half::start_with(&lab, vec![spec(&pod)], |settings| settings.audit_interval = NO_CLOCK);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        proxy.snapshot().await;
        let wire = Capture::start(&pod.netns, "eth0", &[MARKER]).unwrap();
        let caller = Caller::start(&pod, &other);
        let clean = || pod.run(|| installer.audit(wanted(Phase::Steady))).unwrap().unwrap().is_clean();
        let mut slowest = Duration::ZERO;
        for (damage, words) in DAMAGE {
            let before = repairs(half.status.get().pods.get(&"cart".into()));
            shell(&pod, installer.backend(), damage);
            let begun = Instant::now();
            half.until("cart", |pod| repairs(pod) > before).await;
            slowest = slowest.max(begun.elapsed());
            let said = half.status.get().pods[&"cart".into()].repaired.clone().unwrap();
            // A damage of several steps may be repaired in several: the last one need not name the first.
            assert!(said.contains(words) || damage.contains(';'), "{damage}: {said}");
            let whole = async {
                while !clean() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let whole = tokio::time::timeout(DEADLINE, whole).await;
            assert!(whole.is_ok(), "{damage}: not repaired: {:?}", pod.run(|| installer.audit(wanted(Phase::Steady))));
        }
        // A look at our own repair, and then rest.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let total = half.status.get().repairs;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(half.status.get().repairs, total, "our own changes are no damage");
        assert_eq!(proxy.condition(|condition| condition.repairs >= total).await.repairs, total, "metrics hear of it");
        let calls = caller.end();
        wire.report().assert_no_marker().unwrap();
        for service in &services {
            service.set_nonblocking(true).unwrap();
            assert!(service.accept().is_err(), "a call got out");
        }
        println!(
            "{} repairs, the slowest {slowest:?} after the damage; {calls} calls of the pod meanwhile",
            DAMAGE.len()
        );
        half.end().await;
    });
}

/// The only thing that opens a captured pod: every table of nf_tables at once.
#[test]
fn a_flushed_ruleset_is_closed_again_within_milliseconds() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    let pod = lab.pod(1, "cart").unwrap();
    if installer.backend() == Backend::Legacy
        || !pod.command("nft").arg("list").arg("tables").status().is_ok_and(|s| s.success())
    {
        eprintln!("SKIPPED: no nft here");
        return;
    }
    run(async {
        let half = Half::start_with(&lab, vec![spec(&pod)], |settings| settings.audit_interval = NO_CLOCK);
        half.until_state("cart", PodState::Captured).await;
        let closed =
            || pod.command("nft").args(["list", "table", "inet", "weft_guard"]).output().unwrap().status.success();
        let mut open = Vec::new();
        for round in 1..=5 {
            shell(&pod, installer.backend(), "nft flush ruleset");
            let begun = Instant::now();
            let guarded = async {
                while !closed() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(DEADLINE, guarded).await.expect("guarded again");
            open.push(begun.elapsed());
            half.until("cart", |pod| repairs(pod) >= round).await;
            assert_eq!(pod.run(|| installer.count(Ipv6::Usable)).unwrap().unwrap(), 66, "whole again");
        }
        println!("guarded again after {open:?}");
        half.end().await;
    });
}

#[test]
fn listeners_that_somebody_closes_are_made_anew() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "cart").unwrap();
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        let before = proxy.snapshot().await;
        let listening = || {
            let output =
                pod.command("ss").args(["-Hltn", "( sport = :15001 or sport = :15006 or sport = :15008 )"]).output();
            String::from_utf8(output.unwrap().stdout).unwrap().lines().count()
        };
        assert_eq!(listening(), 6);
        let killed = pod.command("ss").args(["-HKltn", "sport = :15001"]).output().unwrap();
        if !killed.status.success() || listening() == 6 {
            eprintln!("SKIPPED: this kernel or ss closes no listeners: {killed:?}");
            return;
        }
        half.until("cart", |pod| {
            pod.and_then(|pod| pod.repaired.as_ref()).is_some_and(|what| what.contains("listeners"))
        })
        .await;
        wait::until(DEADLINE, "six listeners", || listening() == 6).unwrap();
        let weft_node_agent::handover::Event::Pod { listeners, .. } = proxy.next().await else { panic!("not told") };
        drop(before);
        for family in FAMILIES {
            outbound_arrives(&pod, family, &listeners);
        }
        half.end().await;
    });
}
