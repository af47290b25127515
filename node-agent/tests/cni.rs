//! The plugin's program, as a container runtime runs it, against a capture half that is none.
#![expect(clippy::unwrap_used, reason = "test equipment outside of #[test] functions: a failure is the test's")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::{Value, json};
use weft_node_agent::cni::talk::{Answer, Request};

const RESULT: &str = r#"{"cniVersion":"1.0.0", "ips":[{"address":"10.244.1.5/32"}]}"#;

fn run(socket: &Path, command: &str, namespace: &str) -> Output {
    let input = format!(
        r#"{{"cniVersion":"1.0.0","type":"weft-cni","socket":{},"exemptNamespaces":["kube-system"],"prevResult":{RESULT}}}"#,
        json!(socket)
    );
    let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web;K8S_POD_UID=u1");
    let mut program = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
    program.env_clear().env("CNI_COMMAND", command).env("CNI_ARGS", arguments);
    program.env("CNI_CONTAINERID", "c1").env("CNI_NETNS", "/var/run/netns/cni-1");
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs the plugin against one answer; gives what it asked, too.
fn asked(command: &str, answer: &Answer) -> (Request, Output) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cni.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = serde_json::to_string(answer).unwrap();
    let half = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        writeln!(stream, "{answer}").unwrap();
        serde_json::from_str(&line).unwrap()
    });
    let output = run(&socket, command, "shop");
    (half.join().unwrap(), output)
}

#[test]
fn a_pod_starts_when_it_is_captured_or_not_selected() {
    for answer in [Answer::Captured, Answer::NotSelected] {
        let (request, output) = asked("ADD", &answer);
        let Request::Add(pod) = request else { panic!("{request:?}") };
        assert_eq!((&*pod.uid, &*pod.netns, pod.addresses.len()), ("u1", "/var/run/netns/cni-1", 1));
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), RESULT);
    }
}

#[test]
fn a_pod_that_cannot_be_captured_does_not_start() {
    let (_, output) = asked("ADD", &Answer::Failed { message: "no rules".to_owned() });
    assert!(!output.status.success());
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 11);
    assert!(error["msg"].as_str().unwrap().contains("no rules"), "{error}");
}

#[test]
fn without_an_agent_exempt_pods_start_sandboxes_go_and_nothing_else_does() {
    let socket = Path::new("/nowhere/cni.sock");
    let exempt = run(socket, "ADD", "kube-system");
    assert_eq!((exempt.status.success(), String::from_utf8(exempt.stdout).unwrap()), (true, RESULT.to_owned()));
    for command in ["DEL", "CHECK", "STATUS"] {
        let output = run(socket, command, "shop");
        assert!(output.status.success() && output.stdout.is_empty(), "{command}");
    }
    let closed = run(socket, "ADD", "shop");
    let error: Value = serde_json::from_slice(&closed.stdout).unwrap();
    assert_eq!((closed.status.success(), &error["code"]), (false, &json!(11)));
}

#[test]
fn a_sandbox_that_goes_is_told() {
    let (request, output) = asked("DEL", &Answer::Forgotten);
    assert_eq!(request, Request::Delete { container: "c1".to_owned() });
    assert!(output.status.success());
}
