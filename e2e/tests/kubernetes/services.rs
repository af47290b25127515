//! Every way in which Kubernetes makes a pod reachable. A namespace that is strict refuses plaintext, so that an answer out of it proves
//! that the mesh carried the call.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use weft_testkit::wait;

use crate::among_others;
use crate::stage::{DEADLINE, NONE, Stage, all, run, url};

const CLIENT: &str = include_str!("objects/client.yaml");
/// A server on every node, so that every client has one on its own node and some on others.
const EACH: &str = include_str!("objects/each.yaml");
const STATEFUL: &str = include_str!("objects/stateful.yaml");
/// A pod in its node's network: a server, and a client outside the mesh.
const HOSTED: &str = include_str!("objects/hosted.yaml");
const OUTSIDE: &str = include_str!("objects/outside.yaml");
/// A server of DNS: what there is of UDP in every cluster.
const NAMES: &str = include_str!("objects/names.yaml");

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn the_mesh_carries_calls_by_every_kind_of_name_on_the_same_node_and_across() -> Result<()> {
    let _others = among_others();
    let stage = Stage::ready("names", &[CLIENT, EACH, STATEFUL])?;
    let mut calls = all(stage.addresses()?, " 200");
    // Each of the services' addresses by name of a port, by number, and to the other port.
    for address in stage.words(&["service", "each"], "{.spec.clusterIPs[*]}")? {
        calls.extend(
            [(url(&address, 80), "200"), (url(&address, 81), "admin 200"), (url(&address, 82), "admin 200")]
                .map(|(url, expected)| (url, expected.to_owned())),
        );
    }
    let suffix = format!("{}.svc.cluster.local", stage.namespace);
    calls.extend(
        [
            ("http://each/".to_owned(), "200"),
            ("http://each:81/".to_owned(), "admin 200"),
            ("http://headless:8080/".to_owned(), "200"),
            (format!("http://headless.{suffix}:8081/"), "admin 200"),
            ("http://elsewhere/".to_owned(), "200"),
            ("http://elsewhere:81/".to_owned(), "admin 200"),
            ("http://db-0.db:8080/".to_owned(), "db-0 200"),
            (format!("http://db-1.db.{suffix}:8080/"), "db-1 200"),
            ("http://db:8080/".to_owned(), "200"),
        ]
        .map(|(url, expected)| (url, expected.to_owned())),
    );
    stage.expect("client", &calls).context("without the mesh")?;
    stage.enroll()?;
    stage.expect("client", &calls).context("in the mesh")?;
    stage.label("weft.dev/mtls=strict")?;
    stage.expect("client", &calls).context("strict")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn pods_in_their_nodes_network_stay_outside_reach_and_are_reached_and_strict_pods_refuse_them() -> Result<()> {
    let _others = among_others();
    let port = 20_000 + std::process::id() % 10_000;
    let stage = Stage::ready("hosted", &[CLIENT, EACH, &HOSTED.replace("PORT", &port.to_string())])?;
    stage.label("weft.dev/mesh=enabled")?;
    for app in ["app=each", "app=client"] {
        stage.wait_captured(app, "True")?;
    }
    let service = ["http://each/".to_owned()];
    let to_pods = || Ok::<_, anyhow::Error>(stage.addresses()?.into_iter().chain(service.clone()));
    stage.expect("hosted", &all(to_pods()?, "200"))?;
    let hosted = all(["http://hosted/".to_owned()], "hosted 200");
    stage.expect("client", &hosted)?;
    stage.label("weft.dev/mtls=strict")?;
    stage.expect("hosted", &all(to_pods()?, NONE)).context("strict")?;
    stage.expect("client", &hosted).context("from a strict namespace")?;
    let conditions = stage.words(
        &["pods", "-l", "app=hosted"],
        "{.items[*].status.conditions[?(@.type==\"weft.dev/captured\")].status}",
    )?;
    assert!(!conditions.contains(&"True".to_owned()), "a pod in its node's network is never captured");
    Ok(())
}

/// One HTTP call of this process, which is no part of the cluster: whether it was answered with 200.
fn from_here(address: &str, port: u16) -> Result<bool> {
    let patience = std::time::Duration::from_secs(3);
    let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::new(address.parse()?, port), patience) else {
        return Ok(false);
    };
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut text));
    Ok(asked.is_ok() && text.contains(" 200 "))
}

/// The answers that a service of the policy `policy` gives to those outside, by node port and by the balancer's address.
fn outside(stage: &Stage, policy: &str, nodes: &[String], expected: &str) -> Result<()> {
    let text = stage.words(&["service", policy], "{.spec.ports[0].nodePort}")?;
    let port: u16 = text.first().context("a node port")?.parse()?;
    let balanced = stage.words(&["service", policy], "{.status.loadBalancer.ingress[0].ip}")?;
    let urls = nodes.iter().map(|node| url(node, port)).chain(balanced.iter().map(|address| url(address, 80)));
    stage.expect("hosted", &all(urls, expected)).with_context(|| format!("policy {policy}"))?;
    // The nodes of the local cluster are on this machine's own wire; others may be anywhere.
    if std::env::var_os("WEFT_CLUSTER").is_none() {
        return Ok(());
    }
    wait::eventually(DEADLINE, &format!("{expected} of node ports from this machine, policy {policy}"), || {
        for node in nodes {
            let answered = from_here(node, port)?;
            ensure!(answered == (expected != NONE), "{node}:{port} from this machine: {answered}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn node_ports_and_load_balancers_let_the_outside_in_unless_strict_with_both_policies() -> Result<()> {
    let _others = among_others();
    let port = 30_000_u32.saturating_sub(std::process::id() % 10_000);
    let policies = [("cluster", "Cluster", "192.0.2.81"), ("local", "Local", "192.0.2.82")];
    let services: Vec<String> =
        policies.iter().map(|(name, word, _)| OUTSIDE.replace("POLICY_WORD", word).replace("POLICY", name)).collect();
    let hosted = HOSTED.replace("PORT", &port.to_string());
    let stage = Stage::ready("outside", &[CLIENT, EACH, &hosted, &services.join("\n")])?;
    for (name, _, address) in policies {
        // What a cloud's controller does.
        let patch = format!("{{\"status\": {{\"loadBalancer\": {{\"ingress\": [{{\"ip\": \"{address}\"}}]}}}}}}");
        stage.kubectl(&["patch", "service", name, "--subresource=status", "--type=merge", "-p", &patch])?;
    }
    let text =
        run(&["get", "nodes", "-o", "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}"], "")?;
    let nodes: Vec<String> = text.split_whitespace().filter(|word| word.contains('.')).map(str::to_owned).collect();
    ensure!(!nodes.is_empty(), "{text}");
    let both = |expected| policies.iter().try_for_each(|(name, _, _)| outside(&stage, name, &nodes, expected));
    both("200").context("without the mesh")?;
    stage.label("weft.dev/mesh=enabled")?;
    for app in ["app=each", "app=client"] {
        stage.wait_captured(app, "True")?;
    }
    both("200").context("in the mesh")?;
    // A pod of the mesh may use the outer addresses, too.
    let balanced = policies.iter().map(|(_, _, address)| url(address, 80));
    stage.expect("client", &all(balanced, "200"))?;
    stage.label("weft.dev/mtls=strict")?;
    both(NONE).context("strict")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn udp_is_left_alone_by_service_and_by_address() -> Result<()> {
    let _others = among_others();
    let stage = Stage::ready("udp", &[CLIENT, NAMES])?;
    let service = stage.words(&["service", "names"], "{.spec.clusterIP}")?;
    let servers = || {
        Ok::<_, anyhow::Error>(
            [stage.words(&["pods", "-l", "app=names"], "{.items[*].status.podIP}")?, service.clone()].concat(),
        )
    };
    let asks = |moment: &str| -> Result<()> {
        for server in servers()? {
            wait::eventually(DEADLINE, &format!("an answer of {server} by UDP {moment}"), || {
                let answer = stage.exec("client", &["nslookup", "-type=a", "name.example", &server])?;
                ensure!(answer.contains("192.0.2.7"), "{answer}");
                Ok(())
            })?;
        }
        Ok(())
    };
    asks("without the mesh")?;
    stage.enroll()?;
    asks("in the mesh")?;
    stage.label("weft.dev/mtls=strict")?;
    asks("strict")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn a_single_pod_opts_in_and_out_by_its_own_label() -> Result<()> {
    let _others = among_others();
    let stage = Stage::ready("single", &[CLIENT, EACH])?;
    let label = |label: &str| stage.kubectl(&["label", "pods", "-l", "app=client", "--overwrite", label]);
    let calls = |expected| Ok::<_, anyhow::Error>(all(stage.addresses()?, expected));
    label("weft.dev/mesh=enabled")?;
    stage.wait_captured("app=client", "True")?;
    let captured = "{.items[*].status.conditions[?(@.type==\"weft.dev/captured\")].status}";
    assert!(
        !stage.words(&["pods", "-l", "app=each"], captured)?.contains(&"True".to_owned()),
        "others than the one that opted in"
    );
    stage.expect("client", &calls("200")?)?;
    label("weft.dev/mesh-")?;
    stage.wait_captured("app=client", "False")?;
    stage.enroll()?;
    stage.label("weft.dev/mtls=strict")?;
    stage.expect("client", &calls("200")?)?;
    label("weft.dev/mesh=disabled")?;
    stage.wait_captured("app=client", "False")?;
    stage.expect("client", &calls(NONE)?).context("opted out, to strict pods")?;
    label("weft.dev/mesh-")?;
    stage.wait_captured("app=client", "True")?;
    stage.expect("client", &calls("200")?)
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn policies_allow_and_deny_by_identity_on_every_node() -> Result<()> {
    let _others = among_others();
    let stranger = CLIENT.replace("name: client", "name: stranger").replace("app: client", "app: stranger");
    let stranger = stranger.replace("serviceAccountName: client", "serviceAccountName: stranger");
    let stage = Stage::ready("identities", &[CLIENT, &stranger, EACH])?;
    stage.enroll()?;
    let by_service = "http://each/".to_owned();
    let calls =
        |expected| Ok::<_, anyhow::Error>(all(stage.addresses()?.into_iter().chain([by_service.clone()]), expected));
    for (action, of_client, of_stranger) in [("Allow", "200", NONE), ("Deny", NONE, "200")] {
        stage.apply(&format!(
            "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: each}}\nspec:\n  action: {action}\n  targetRefs: \
             [{{kind: Pod, selector: {{matchLabels: {{app: each}}}}}}]\n  rules: [{{from: [{{serviceAccounts: [NAMESPACE/client]}}]}}]\n"
        ))?;
        stage.expect("client", &calls(of_client)?).context(action)?;
        stage.expect("stranger", &calls(of_stranger)?).context(action)?;
    }
    Ok(())
}
