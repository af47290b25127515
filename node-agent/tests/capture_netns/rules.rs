//! Rules and routes alone: in, twice, changed, damaged, repaired, out.

use weft_node_agent::capture::{
    install::Audit,
    netns::{Netns, NetnsError},
    routes,
    ruleset::{Phase, Way},
    socket::{Ipv6, Listeners, SocketError},
};
use weft_testkit::{enter_or_skip, netns::Lab};

use crate::equipment::{FAMILIES, block_on, installers, listen, wanted};

#[test]
fn in_twice_changed_and_out() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    for installer in installers() {
        let pod = lab.pod(1, &format!("{:?}", installer.backend()).to_lowercase()).unwrap();
        pod.run(|| {
            assert!(installer.apply(wanted(Phase::Steady)).unwrap());
            let count = installer.count(Ipv6::Usable).unwrap();
            assert_eq!(count, 2 * 33, "per family: 5 chains, 23 rules and 5 jumps");
            assert!(!installer.apply(wanted(Phase::Steady)).unwrap(), "nothing to do the second time");
            assert_eq!(installer.count(Ipv6::Usable).unwrap(), count);
            for phase in Phase::ALL.into_iter().skip(1).chain([Phase::Enrol(Way::Relayed), Phase::Steady]) {
                assert!(installer.apply(wanted(phase)).unwrap());
                assert_eq!(installer.audit(wanted(phase)).unwrap(), Audit::default());
            }
            assert_eq!(installer.count(Ipv6::Usable).unwrap(), count, "a transition leaves nothing behind");
            let guard = || std::process::Command::new("nft").args(["list", "table", "inet", "weft_guard"]).output();
            assert!(guard().unwrap().status.success(), "the guard stands in a table of its own as well");
            for _ in 0..2 {
                installer.remove(Ipv6::Usable).unwrap();
                assert!(!guard().unwrap().status.success());
                assert_eq!(installer.count(Ipv6::Usable).unwrap(), 0);
                for family in FAMILIES {
                    assert_eq!(routes::audit(family).unwrap(), routes::Routing::default());
                }
            }
        })
        .unwrap();
    }
}

#[test]
fn damage_is_found_and_repaired() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    for installer in installers() {
        let backend = format!("{:?}", installer.backend()).to_lowercase();
        let pod = lab.pod(1, &backend).unwrap();
        pod.run(|| installer.apply(wanted(Phase::Steady))).unwrap().unwrap();
        for damage in [
            format!("ip6tables-{backend} -t mangle -F WEFT_PRE"),
            format!("iptables-{backend} -t mangle -D OUTPUT ! -o lo -p tcp -j WEFT_OUT"),
            format!("iptables-{backend} -t filter -F"),
            format!("iptables-{backend} -t mangle -I PREROUTING -j ACCEPT"),
            "ip rule del pref 32764".to_owned(),
            "ip -6 route flush table 100".to_owned(),
            "ip rule add fwmark 0x111/0xfff pref 32764 lookup 100".to_owned(),
            "sh -c 'ip link set lo down; ip link set lo up'".to_owned(),
        ] {
            let done = pod.command("sh").args(["-c", &damage]).env("XTABLES_LOCKFILE", "/run/l").output().unwrap();
            assert!(done.status.success() || damage.contains("rule add"), "{damage}: {done:?}");
            let (before, after) = pod
                .run(|| {
                    let before = installer.audit(wanted(Phase::Steady)).unwrap();
                    installer.apply(wanted(Phase::Steady)).unwrap();
                    (before, installer.audit(wanted(Phase::Steady)).unwrap())
                })
                .unwrap();
            assert!(!before.is_clean() || damage.contains("rule add"), "{damage} was not found");
            assert!(after.is_clean(), "{damage} was not repaired: {after:?}");
        }
    }
}

#[test]
fn other_ports_where_the_application_holds_ours_and_none_where_it_holds_hbone() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "busy").unwrap();
    let wildcard = pod.run(|| std::net::TcpListener::bind("0.0.0.0:15001")).unwrap().unwrap();
    let on_address = listen(&pod, FAMILIES[0], 15006);
    let listeners = pod.run(|| Listeners::open(2, &FAMILIES)).unwrap().unwrap();
    assert_eq!((listeners.ports.outbound, listeners.ports.inbound), (15101, 15006));
    assert_eq!(listeners.all.len(), 12);
    drop((wildcard, on_address, listeners));

    let _application = pod.run(|| std::net::TcpListener::bind("[::]:15008")).unwrap().unwrap();
    let refusal = pod.run(|| Listeners::open(1, &FAMILIES)).unwrap();
    assert!(matches!(refusal, Err(SocketError::HbonePortTaken)), "{refusal:?}");
}

#[test]
fn worker_sets_are_kept_added_and_closed() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "workers").unwrap();
    pod.run(|| {
        let mut listeners = Listeners::open(1, &FAMILIES).unwrap();
        let first = std::sync::Arc::downgrade(&listeners.all[0].socket);
        listeners.resize(3, &FAMILIES).unwrap();
        assert_eq!((listeners.workers(), listeners.all.len()), (3, 18));
        let last = std::sync::Arc::downgrade(&listeners.all[17].socket);
        listeners.resize(2, &FAMILIES).unwrap();
        assert_eq!((listeners.workers(), listeners.all.len()), (2, 12));
        assert!(first.upgrade().is_some(), "the queue of a worker that stays is kept");
        assert!(last.upgrade().is_none());
    })
    .unwrap();
}

#[test]
fn ipv6_switched_off_is_guarded_without_listeners() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "four").unwrap();
    let written = pod.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")).unwrap();
    if let Err(error) = written {
        eprintln!("SKIPPED ipv6_switched_off: sysctls cannot be written here: {error}");
        return;
    }
    for installer in installers() {
        pod.run(|| {
            assert_eq!(Ipv6::detect(), Ipv6::Off);
            let off = weft_node_agent::capture::install::Wanted { ipv6: Ipv6::Off, ..wanted(Phase::Steady) };
            assert!(installer.apply(off).unwrap());
            assert!(installer.audit(off).unwrap().is_clean());
            assert_eq!(installer.count(Ipv6::Off).unwrap(), 2 * 33);
            assert_eq!(Listeners::open(1, Ipv6::Off.families()).unwrap().all.len(), 3);
            installer.remove(Ipv6::Off).unwrap();
        })
        .unwrap();
    }
}

#[test]
fn only_the_pods_own_namespace_is_entered() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (pod, other) = (lab.pod(1, "right").unwrap(), lab.pod(1, "wrong").unwrap());
    block_on(async {
        let thread = Netns::open(&pod.netns).unwrap().start_thread(vec![pod.v6.into()]).await.unwrap();
        assert!(thread.run(|| nix::net::if_::if_nametoindex("eth0").is_ok()).await.unwrap());
        let wrong = Netns::open(&pod.netns).unwrap().start_thread(vec![other.v4.into()]).await;
        assert!(matches!(wrong, Err(NetnsError::WrongPod { .. })), "{wrong:?}");
        let path = format!("/run/netns/{}", pod.netns);
        assert!(Netns::open(&path).unwrap().start_thread(vec![pod.v4.into()]).await.is_ok());
        let unproven = Netns::open(&pod.netns).unwrap().start_thread(Vec::new()).await;
        assert!(matches!(unproven, Err(NetnsError::Unproven(_))), "{unproven:?}");
        assert!(matches!(
            Netns::open("/proc/self/ns/mnt").unwrap().start_thread(vec![pod.v4.into()]).await,
            Err(NetnsError::NotNetns(_))
        ));
    });
}
