//! Probes of the kubelet enter strict pods, and nobody else of the node does. The kubelet is a shell by that name.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use weft_model::Reason;
use weft_model::authz::{Action, Match, StringMatch};
use weft_model::change::Resource;
use weft_node_agent::telemetry::{ConnectionRecord, Probe, Security};
use weft_testkit::enter_or_skip;
use weft_testkit::netns::{Lab, Pod};

use crate::nodes::{Cluster, eventually};
use crate::{accept, listen, policy};

/// Connects to where a line of its input says, and says what it heard there; `close` hears nobody out.
const CALLER: &str = r#"
while read -r word host port; do
  if [ "$word" = close ]; then : < "/dev/tcp/$host/$port" && echo closed || echo refused
  elif read -t 20 -r heard < "/dev/tcp/$host/$port"; then echo "heard $heard"
  else echo refused; fi
done 2>/dev/null
"#;

/// A process of the node that calls pods.
struct Caller {
    child: Child,
    orders: ChildStdin,
    words: Lines<BufReader<ChildStdout>>,
}

impl Caller {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let words = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, orders, words }
    }

    /// A shell of the node, by the name of its program's file.
    fn of_node(lab: &Lab, program: &str) -> Self {
        let mut command = lab.nodes()[0].command(program);
        command.args(["-c", CALLER]);
        Self::start(command)
    }

    fn order(&mut self, word: &str, to: SocketAddr) {
        writeln!(self.orders, "{word} {} {}", to.ip(), to.port()).unwrap();
    }

    fn says(&mut self) -> String {
        self.words.next().unwrap().unwrap()
    }

    fn is_refused(&mut self, to: SocketAddr) {
        self.order("call", to);
        assert_eq!(self.says(), "refused", "{to}");
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn strict() -> Resource {
    let no_identity = Match { not_principals: vec![StringMatch::Presence], ..Match::default() };
    policy("strict", Action::Deny, no_identity)
}

/// The shell, by the name of the kubelet.
fn kubelet_program(lab: &Lab) -> PathBuf {
    let program = lab.directory().join("kubelet");
    fs::copy("/bin/bash", &program).unwrap();
    program
}

fn at(pod: &Pod, v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(pod.address(v6), port)
}

fn probes(record: &ConnectionRecord) -> bool {
    record.probe.is_some()
}

#[test]
fn the_kubelet_enters_a_strict_pod_at_its_probe_ports_and_no_other_process_of_the_node_does() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (cart, program) = (lab.pod(1, "cart").unwrap(), kubelet_program(&lab));
    let node = Caller::of_node(&lab, "/bin/bash");
    let mut stranger = Caller::of_node(&lab, "/bin/bash");
    let mut kubelet = Caller::of_node(&lab, program.to_str().unwrap());
    let mut container = {
        let mut command = lab.nodes()[0].command("unshare");
        command.arg("--mount").arg(program).args(["-c", CALLER]);
        Caller::start(command)
    };
    let mut cluster = Cluster::with_kubelet(&lab, node.child.id());
    cluster.enrol(&[&cart]);
    cluster.apply([strict()]);
    for v6 in [false, true] {
        let (listener, to) = (listen(&cart, v6, 8080), at(&cart, v6, 8080));
        kubelet.order("call", to);
        let (mut server, peer) = accept(&listener);
        // It is not checked again when policies change.
        cluster.apply([policy("more", Action::Deny, Match { destination_ports: vec![1], ..Match::default() })]);
        for other in [&mut stranger, &mut container] {
            other.is_refused(to);
            let record = cluster.record(|record| record.reason == Some(Reason::MtlsRequired));
            assert!(record.detail.is_some_and(|words| words.contains("another process of this node")));
        }
        writeln!(server, "welcome").unwrap();
        assert_eq!(kubelet.says(), "heard welcome");
        drop(server);
        let record = cluster.record(|record| probes(record) && record.destination == to);
        assert_eq!((record.probe, record.reason), (Some(Probe::Kubelet), None), "{record:?}");
        assert_eq!((record.security, record.policy), (Security::Plaintext, None));
        assert_eq!(record.source.ip(), peer.ip(), "the node's own address");
        // Where no probe of the pod goes.
        let elsewhere = listen(&cart, v6, 9090);
        kubelet.is_refused(at(&cart, v6, 9090));
        for listener in [&listener, &elsewhere] {
            listener.set_nonblocking(true).unwrap();
            assert!(listener.accept().is_err(), "nothing was delivered");
        }
        // A TCP probe is over before or while somebody asks whose it was, or after it: never refused.
        listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        for _ in 0..50 {
            kubelet.order("close", to);
            assert_eq!(kubelet.says(), "closed");
            let record = cluster.record(|record| record.destination == to);
            assert!(probes(&record) && record.reason.is_none(), "{record:?}");
            assert_eq!((record.sent, record.received), (0, 0));
        }
    }
}

#[test]
fn a_kubelet_that_starts_later_enters_where_a_policy_names_others_unless_the_agent_cannot_ask() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let (cart, program) = (lab.pod(1, "cart").unwrap(), kubelet_program(&lab));
    let (node, mut stranger) = (Caller::of_node(&lab, "/bin/bash"), Caller::of_node(&lab, "/bin/bash"));
    let mut cluster = Cluster::with_kubelet(&lab, node.child.id());
    cluster.enrol(&[&cart]);
    let principals = vec![StringMatch::Exact("cluster.local/ns/shop/sa/web".into())];
    cluster.apply([policy("only", Action::Allow, Match { principals, ..Match::default() })]);
    let (listener, to) = (listen(&cart, false, 8080), at(&cart, false, 8080));
    // Ends with the process of this test.
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut stream| writeln!(stream, "welcome").unwrap())
    });
    stranger.is_refused(to);
    let record = cluster.record(|record| record.reason == Some(Reason::PolicyNotAllowed));
    let detail = record.detail.unwrap();
    assert!(detail.contains("no process of this node is the kubelet"), "{detail}");

    let mut kubelet = Caller::of_node(&lab, program.to_str().unwrap());
    // While none is the kubelet, processes are looked at once a second.
    eventually(|| {
        kubelet.order("call", to);
        kubelet.says() == "heard welcome"
    });
    // As where the capture half is older, or away.
    fs::remove_file(lab.directory().join("kubelet.sock")).unwrap();
    kubelet.is_refused(to);
    let record = cluster.record(|record| record.reason == Some(Reason::PolicyNotAllowed) && record.detail.is_none());
    assert_eq!(record.probe, None);
}
