//! Half-dead states (`docs/capture.md`, "A part is missing"), each judged by the packets that pass the pod's interface. The tap of a packet
//! socket sits behind the packet filter on the way out and before it on the way in, so a frame from the pod has left it.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use weft_node_agent::{
    capture::{install::Installer, ruleset::Phase},
    handover::{Family, ListenerRole},
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
    wire::Capture,
};

use crate::equipment::{
    Captured, DEADLINE, FAMILIES, QUIET, accept, address, connect, elsewhere, installers, listen, refused,
};

/// What an application sends; must never be seen.
const MARKER: &str = "HALF-DEAD-MARKER";
/// Where applications listen, in the pod and elsewhere.
const PORT: u16 = 8080;

/// What happens to calls of the pod.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Calls {
    /// Its own ones are captured as ever (and wait for somebody to accept them).
    Wait,
    /// They get no answer.
    TimeOut,
}

/// The damage, as shell commands with the names of the programs put in, and what is left of the capture.
const STATES: [(&str, &str, Calls); 11] = [
    ("nothing wrong, but no proxy", "true", Calls::Wait),
    ("ip rule missing", "ip rule del pref 32764; ip -6 rule del pref 32764", Calls::TimeOut),
    ("route missing", "ip route flush table 100; ip -6 route flush table 100", Calls::TimeOut),
    // IPv4 keeps its route, IPv6 loses it.
    ("lo down and up", "ip link set lo down; ip link set lo up; ip route flush table 100", Calls::TimeOut),
    ("mangle OUTPUT emptied", "$4 -t mangle -F OUTPUT; $6 -t mangle -F OUTPUT", Calls::TimeOut),
    ("mangle PREROUTING emptied", "$4 -t mangle -F PREROUTING; $6 -t mangle -F PREROUTING", Calls::TimeOut),
    ("mangle emptied", "$4 -t mangle -F; $6 -t mangle -F", Calls::TimeOut),
    ("filter emptied", "$4 -t filter -F; $6 -t filter -F", Calls::Wait),
    (
        "every iptables table emptied",
        "for t in mangle filter; do $4 -t $t -F; $4 -t $t -X; $6 -t $t -F; $6 -t $t -X; done",
        Calls::TimeOut,
    ),
    // Found by the simulation: what mangle has marked for lo and no rule leads there went out, past both other guards.
    (
        "ip rule missing and mangle POSTROUTING emptied",
        "ip rule del pref 32764; ip -6 rule del pref 32764; $4 -t mangle -F POSTROUTING; $6 -t mangle -F POSTROUTING",
        Calls::TimeOut,
    ),
    (
        "our chains emptied",
        "for t in WEFT_PRE WEFT_OUT WEFT_POST; do $4 -t mangle -F $t; $6 -t mangle -F $t; done",
        Calls::TimeOut,
    ),
];

struct Bench<'a> {
    pod: Pod,
    other: Pod,
    backend: String,
    installer: &'a Installer,
    wire: Capture,
    applications: [TcpListener; 2],
    services: [TcpListener; 2],
}

impl<'a> Bench<'a> {
    fn new(lab: &Lab, number: usize, installer: &'a Installer) -> Self {
        let backend = format!("{:?}", installer.backend()).to_lowercase();
        let pod = lab.pod(1, &format!("pod{number}")).unwrap();
        let other = lab.pod(2, &format!("other{number}")).unwrap();
        let wire = Capture::start(&pod.netns, "eth0", &[MARKER]).unwrap();
        let applications = FAMILIES.map(|family| listen(&pod, family, PORT));
        let services = FAMILIES.map(|family| listen(&other, family, PORT));
        Self { pod, other, backend, installer, wire, applications, services }
    }

    fn shell(&self, commands: &str) {
        let (v4, v6) = (format!("iptables-{}", self.backend), format!("ip6tables-{}", self.backend));
        let commands = commands.replace("$4", &v4).replace("$6", &v6);
        let mut shell = self.pod.command("sh");
        let output = shell.args(["-c", &commands]).env("XTABLES_LOCKFILE", "/run/l").output().unwrap();
        assert!(output.status.success(), "{commands}: {output:?}");
    }

    /// Calls in both directions and families at once; the pod's own ones say the marker as soon as they can.
    fn call(&self) -> Vec<(bool, io::Result<TcpStream>)> {
        let call = |out: bool, from: &Pod, to: SocketAddr| {
            let mut stream = connect(from, to, QUIET)?;
            if out {
                stream.write_all(MARKER.as_bytes())?;
            }
            Ok(stream)
        };
        thread::scope(|scope| {
            let calls: Vec<_> = FAMILIES
                .into_iter()
                .flat_map(|family| [(true, family), (false, family)])
                .map(|(out, family)| {
                    let (from, to) = if out { (&self.pod, &self.other) } else { (&self.other, &self.pod) };
                    let to = address(to, family, PORT);
                    (out, scope.spawn(move || call(out, from, to)))
                })
                .collect();
            calls.into_iter().map(|(out, call)| (out, call.join().unwrap())).collect()
        })
    }

    /// Nothing of the pod has left it, and nothing has reached an application.
    fn assert_closed(&self, state: &str) {
        for (index, family) in FAMILIES.into_iter().enumerate() {
            let reached = |listener: &TcpListener| accept(listener, QUIET / 20).is_some();
            assert!(!reached(&self.services[index]), "{} {state}: {family:?} a call got out", self.backend);
            assert!(!reached(&self.applications[index]), "{} {state}: {family:?} a call got in", self.backend);
        }
        let report = self.wire.report();
        report.assert_no_marker().unwrap();
        for flow in report.on_port(PORT) {
            let pod = [self.pod.address(false), self.pod.address(true)];
            assert!(!pod.contains(&flow.a.ip()), "{} {state}: left the pod: {flow}", self.backend);
        }
    }
}

#[test]
fn no_packet_of_the_pod_leaves_in_any_half_dead_state() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let installers = installers();
    for (number, installer) in installers.iter().enumerate() {
        let bench = Bench::new(&lab, number, installer);
        let captured = Captured::new(&bench.pod, bench.installer, Phase::Steady);
        for (state, damage, own_calls) in STATES {
            bench.shell(damage);
            bench.wire.forget();
            for (out, outcome) in bench.call() {
                let waits = out && own_calls == Calls::Wait;
                // Calls to the pod are answered by the agent's listener wherever TPROXY still stands.
                if out {
                    assert_eq!(outcome.is_ok(), waits, "{} {state}: {outcome:?}", bench.backend);
                }
            }
            bench.assert_closed(state);
            captured.change(Phase::Steady);
        }
    }
}

#[test]
fn a_socket_bound_to_the_device_gets_nothing_out() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let installer = &installers()[0];
    let bench = Bench::new(&lab, 0, installer);
    let _captured = Captured::new(&bench.pod, installer, Phase::Steady);
    for family in FAMILIES {
        let to = address(&bench.other, family, PORT);
        let bound = bench.pod.run(|| {
            let domain = socket2::Domain::for_address(to);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.connect_timeout(&to.into(), QUIET)
        });
        assert_eq!(bound.unwrap().map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }
    bench.assert_closed("bound to the device");
}

#[test]
fn both_halves_dead_close_the_pod_and_their_return_opens_it() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let installers = installers();
    for (number, installer) in installers.iter().enumerate() {
        let bench = Bench::new(&lab, number, installer);
        drop(Captured::new(&bench.pod, installer, Phase::Steady));
        for (_, outcome) in bench.call() {
            assert!(outcome.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
        }
        bench.assert_closed("both halves dead");
        for family in FAMILIES {
            let hbone = connect(&bench.other, address(&bench.pod, family, 15008), DEADLINE);
            assert!(refused(hbone), "HBONE is refused at once");
        }
        // They come back: the next retransmission of the SYN succeeds.
        let back = Captured::new(&bench.pod, installer, Phase::Steady);
        connect(&bench.pod, elsewhere(Family::V4), DEADLINE).unwrap();
        assert!(back.accept(ListenerRole::Outbound, Family::V4, DEADLINE).is_some());
    }
}
