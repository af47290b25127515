//! Whose tokens the control plane takes, and for what: real ones of the API server, by whoever could get hold of them.

use anyhow::{Context, Result, ensure};
use weft_model::SpiffeId;
use weft_testkit::{stranger, wait};

use crate::among_others;
use crate::stage::{DEADLINE, Stage, run};

const CLIENT: &str = include_str!("objects/client.yaml");
/// What the control plane's tokens are for (manifests/base/node-agent.yaml).
const AUDIENCE: &str = "--audience=weft";
const SERVICE: &str =
    "https://weft-xds-server.weft-system.svc:15012/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A field of protobuf with a length (encoding.md, wire type 2).
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("seven bits"));
    bytes.extend_from_slice(content);
    bytes
}

/// The request of a certificate as gRPC sends it: `csr`, and `metadata` that names the identity.
fn question(identity: &SpiffeId) -> Result<Vec<u8>> {
    let text = identity.to_string();
    let entry = [field(1, b"ImpersonatedIdentity"), field(2, &field(3, text.as_bytes()))].concat();
    let message = [field(1, stranger::certificate_request(identity)?.as_bytes()), field(4, &field(1, &entry))].concat();
    let length = u32::try_from(message.len())?;
    Ok([&[0][..], &length.to_be_bytes(), &message].concat())
}

/// Asks from a pod with this token: the headers of the answer, and `CERTIFICATE` if it holds one. Again if there was none at all: a test
/// beside this one may be replacing the control plane.
fn ask(stage: &Stage, token: &str) -> Result<String> {
    let script = format!(
        "cd /tmp; curl -s --http2 -m 10 --cacert root.pem -H 'content-type: application/grpc' -H 'te: trailers' -H 'authorization: Bearer {token}' \
         --data-binary @question -D - -o answer {SERVICE}; grep -a -q 'BEGIN CERTIFICATE' answer && echo CERTIFICATE; rm -f answer; true"
    );
    wait::eventually(DEADLINE, "an answer of the control plane", || {
        let answer = stage.exec("client", &["sh", "-c", &script])?;
        ensure!(answer.contains("grpc-status"), "{answer}");
        Ok(answer)
    })
}

/// Writes a file in a pod, by the command line: of twelve inputs of `kubectl exec -i` on a busy machine, two were lost as a whole.
fn put(stage: &Stage, path: &str, content: &[u8]) -> Result<()> {
    let octal: String = content.iter().map(|byte| format!("\\{byte:03o}")).collect();
    stage.exec("client", &["sh", "-c", &format!("printf '{octal}' > {path}")]).map(drop)
}

/// A token of the agents' account that is bound to the agent's pod on a node (or on any other node than it).
fn of_agent(node: &str, there: bool) -> Result<String> {
    let pods = run(
        &[
            "-n",
            "weft-system",
            "get",
            "pods",
            "-l",
            "app=weft-node-agent",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}",
        ],
        "",
    )?;
    let mut pods = pods.lines().filter_map(|line| line.split_once(' '));
    let (pod, _) = pods.find(|(_, on)| (*on == node) == there).context("an agent")?;
    let bound = format!("--bound-object-name={pod}");
    run(&["-n", "weft-system", "create", "token", "weft-node-agent", AUDIENCE, "--bound-object-kind=Pod", &bound], "")
        .map(|token| token.trim().to_owned())
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn an_agents_token_gets_identities_of_its_own_node_and_no_other_token_gets_any() -> Result<()> {
    let _others = among_others();
    let stage = Stage::ready("tokens", &[CLIENT])?;
    stage.enroll()?;
    let node = stage.words(&["pods", "-l", "app=client"], "{.items[0].spec.nodeName}")?.concat();
    let identity = SpiffeId::new("cluster.local", &stage.namespace, "client")?;
    let path = "jsonpath={.data.root-cert\\.pem}";
    put(
        &stage,
        "/tmp/root.pem",
        run(&["-n", "weft-system", "get", "configmap", "weft-root-cert", "-o", path], "")?.as_bytes(),
    )?;
    put(&stage, "/tmp/question", &question(&identity)?)?;
    let answer = ask(&stage, &of_agent(&node, true)?)?;
    ensure!(answer.contains("CERTIFICATE"), "the agent of the pod's own node: {answer}");
    let answer = ask(&stage, &of_agent(&node, false)?)?;
    ensure!(
        answer.contains("identity-not-on-node") && !answer.contains("CERTIFICATE"),
        "the agent of another node: {answer}"
    );
    let agents = ["-n", "weft-system", "create", "token", "weft-node-agent"];
    let own = ["-n", &stage.namespace, "create", "token", "client"];
    let others: [(&str, &[&str], &[&str]); 4] = [
        ("the agents' account, not bound to a pod", &agents, &[AUDIENCE]),
        ("the agents' account, for the API server", &agents, &[]),
        ("the agents' account, for somebody else", &agents, &["--audience=vault"]),
        ("the pod's own account, for us", &own, &[AUDIENCE]),
    ];
    for (whose, words, more) in others {
        let answer = ask(&stage, run(&[words, more].concat(), "")?.trim())?;
        ensure!(answer.contains("grpc-status: 16") && !answer.contains("CERTIFICATE"), "{whose}: {answer}");
    }
    let answer = ask(&stage, "nonsense")?;
    ensure!(answer.contains("grpc-status: 16"), "nonsense: {answer}");
    Ok(())
}
