//! Our agents under a stock istiod. The stock programs are not part of this
//! repository: `WEFT_PEER_ISTIOD`, `WEFT_PEER_ETCD`, `WEFT_PEER_KUBE_APISERVER` and `WEFT_PEER_ISTIO_CRDS` name them, and
//! without them the test says that it was skipped. `docs/interop.md` has the results.

mod kubernetes;
mod stage;

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weft_testkit::mesh::PodPlan;
use weft_testkit::netns::cluster_ip;
use weft_testkit::traffic::{Behaviour, Outcome, Server, connect, echo, outcome};
use weft_testkit::wait;

use crate::kubernetes::Programs;
use crate::stage::{APP, CART_SERVICE, EFFECT, Stage};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const BANK: &str = "spiffe://cluster.local/ns/shop/sa/bank";

/// One test: the control plane takes long to start.
#[test]
fn our_agents_under_a_stock_istiod() {
    let Some(programs) = Programs::find("our_agents_under_a_stock_istiod") else { return };
    weft_testkit::enter_or_skip!();
    let mut stage = Stage::build(programs).unwrap();
    it_is_subscribed_and_acknowledges(&stage).unwrap();
    bytes_by_address_and_service(&stage).unwrap();
    only_accounts_of_the_node(&stage).unwrap();
    istio_policies_are_enforced(&mut stage).unwrap();
    it_resumes(&mut stage).unwrap();
}

fn it_is_subscribed_and_acknowledges(stage: &Stage) -> Result<()> {
    for node in [1, 2] {
        // Two agents, three pods of the shop, one service, and what istiod makes of its own.
        wait::until(EFFECT, "everything", || stage.held(node, "Address").is_ok_and(|held| held >= 6))?;
        stage.wait_log(node, &["takes no reports"])?;
        let view = stage.section(node, "config")?;
        assert_eq!(view["control_plane"]["connected"], true, "{view}");
    }
    let said = stage.kubernetes.istiod.output();
    assert!(!said.contains("ACK ERROR"), "{said}");
    Ok(())
}

fn bytes_by_address_and_service(stage: &Stage) -> Result<()> {
    let _server = Server::start(&stage.cart.netns, (IpAddr::from([0_u16; 8]), APP).into(), Behaviour::Echo)?;
    let (v4, v6) = cluster_ip(CART_SERVICE);
    let ways = [(stage.cart.address(false), APP), (stage.cart.address(true), APP), (v4.into(), 80), (v6.into(), 80)];
    for (address, port) in ways {
        let stream = connect(&stage.web.netns, (address, port).into(), EFFECT)?;
        echo(&stream, &[42; 3 << 20]).with_context(|| format!("{address} {port}"))?;
    }
    stage.assert_only_hbone()?;
    let identities =
        ["src.identity=spiffe://cluster.local/ns/shop/sa/web", "dst.identity=spiffe://cluster.local/ns/shop/sa/cart"];
    stage
        .wait_log(1, &[&identities[..], &["direction=outbound", "dst.service=cart.shop.svc.cluster.local"]].concat())?;
    stage.wait_log(2, &[&identities[..], &["direction=inbound", "verdict=ok"]].concat())?;
    Ok(())
}

/// The directory says that an account runs on node 1, Kubernetes does not: istiod refuses its certificate.
fn only_accounts_of_the_node(stage: &Stage) -> Result<()> {
    wait::eventually(EFFECT, "istiod's refusal", || {
        let certificates = stage.section(1, "certs")?;
        let rows = certificates.as_array().context("rows")?;
        let bank = rows.iter().find(|it| it["identity"] == BANK).context("no row yet")?;
        let error = bank["last_error"].as_str().unwrap_or_default();
        ensure!(bank["state"] == "waiting" && error.contains("impersonation authentication failure"), "{certificates}");
        let web = rows.iter().find(|it| it["identity"] == WEB).context("no row yet")?;
        ensure!(web["state"] == "valid", "{certificates}");
        anyhow::Ok(())
    })?;
    Ok(())
}

fn istio_policies_are_enforced(stage: &mut Stage) -> Result<()> {
    let _server = Server::start(&stage.cart.netns, (IpAddr::from([0_u16; 8]), APP).into(), Behaviour::Echo)?;
    stage.cluster.namespace("outside", &[])?;
    let stranger = stage.cluster.pod(PodPlan::new("outside", "stranger", "stranger-1", 1))?;
    let to = SocketAddr::new(stage.cart.address(false), APP);
    let answered = |found: Outcome| matches!(found, Outcome::Answered(_));
    assert!(answered(outcome(&stranger.netns, to, EFFECT)), "permissive");
    let live: Vec<TcpStream> = (0..20).map(|_| connect(&stage.web.netns, to, EFFECT)).collect::<Result<_, _>>()?;
    let all_live = || live.iter().all(|stream| echo(stream, b"still here").is_ok());
    assert!(all_live());
    stage.policy("PeerAuthentication", "default", &json!({"mtls": {"mode": "STRICT"}}))?;
    wait::until(EFFECT, "strict mode", || !answered(outcome(&stranger.netns, to, EFFECT)))?;
    assert!(answered(outcome(&stage.web.netns, to, EFFECT)), "the mesh goes on");
    stage.wait_log(2, &["reason=mtls-required", "policy=istio-system/istio_converted_static_strict"])?;
    // istiod names a policy at the workload before it sends the policy: who is permitted by both must not be cut.
    assert!(all_live(), "{}", stage.proxies[1].process().output());
    let rule = json!({"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]});
    let spec = json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "ALLOW", "rules": [rule]});
    stage.policy("AuthorizationPolicy", "only-web", &spec)?;
    wait::until(EFFECT, "the policy", || stage.held(2, "Authorization").is_ok_and(|held| held == 2))?;
    assert!(all_live(), "{}", stage.proxies[1].process().output());
    let rule = json!({"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]});
    let spec = json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "DENY", "rules": [rule]});
    stage.policy("AuthorizationPolicy", "no-web", &spec)?;
    wait::until(EFFECT, "the refusal", || !answered(outcome(&stage.web.netns, to, EFFECT)))?;
    stage.wait_log(1, &["verdict=refused", "reason=policy-denied", "direction=outbound"])?;
    stage.wait_log(2, &["verdict=refused", "reason=policy-denied", "policy=shop/no-web"])?;
    wait::until(EFFECT, "the end of live streams", || live.iter().all(|stream| echo(stream, b"?").is_err()))?;
    let lab = stage.cluster.lab();
    stage.kubernetes.kubectl(lab, &["delete", "authorizationpolicies.security.istio.io", "-n", "shop", "no-web"])?;
    wait::until(EFFECT, "an answer", || answered(outcome(&stage.web.netns, to, EFFECT)))?;
    Ok(())
}

fn it_resumes(stage: &mut Stage) -> Result<()> {
    let _server = Server::start(&stage.cart.netns, (IpAddr::from([0_u16; 8]), APP).into(), Behaviour::Echo)?;
    let to = SocketAddr::new(stage.cart.address(false), APP);
    let held = stage.held(1, "Address")?;
    let pushes = |stage: &Stage| -> Vec<String> {
        let said = stage.kubernetes.istiod.output();
        said.lines().filter(|line| line.contains("WDS: PUSH request for node:weft-node")).map(str::to_owned).collect()
    };
    let before = pushes(stage).len();
    stage.kubernetes.istiod.kill9()?;
    let connected = |stage: &Stage| stage.section(1, "config").is_ok_and(|it| it["control_plane"]["connected"] == true);
    wait::until(EFFECT, "the loss", || !connected(stage))?;
    assert!(matches!(outcome(&stage.web.netns, to, EFFECT), Outcome::Answered(_)), "with what it holds");
    stage.kubernetes.restart_istiod(stage.cluster.lab())?;
    wait::until(EFFECT, "the stream", || connected(stage))?;
    assert_eq!(stage.held(1, "Address")?, held);
    assert!(matches!(outcome(&stage.web.netns, to, EFFECT), Outcome::Answered(_)));
    // Nothing had changed, and nothing was sent again: the versions of the resumed stream were understood.
    wait::until(EFFECT, "the answers to both agents", || pushes(stage).len() >= before + 2)?;
    let anew = pushes(stage).split_off(before);
    assert!(anew.iter().all(|line| line.contains("resources:0 removed:0")), "{anew:#?}");
    Ok(())
}
