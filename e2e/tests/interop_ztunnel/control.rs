//! ztunnel as a client of our control plane: subscriptions, acknowledgements, certificates; and of the ZDS server here.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::Value;
use weft_testkit::agents::SERVER_ADMIN;
use weft_testkit::traffic::{Behaviour, Outcome, Server, outcome};
use weft_testkit::wait;

use crate::stage::{EFFECT, HBONE, Stage, anywhere};
use crate::stage_or_skip;

#[test]
fn it_subscribes_acknowledges_and_gets_certificates() {
    let mut stage = stage_or_skip!("it_subscribes_acknowledges_and_gets_certificates");
    let admin = SocketAddr::from(([127, 0, 0, 1], SERVER_ADMIN));
    wait::eventually(EFFECT, "ztunnel in sync", || {
        let view: Value = serde_json::from_str(&stage.mesh.server.get(admin, "/debug/config")?)?;
        let subscribers = view["subscribers"].as_array().context("subscribers")?;
        let theirs = subscribers.iter().find(|it| it["agent"] == "ztunnel").context("a ztunnel")?;
        let types = theirs["types"].as_array().context("types")?;
        ensure!(theirs["node"] == "node2" && theirs["in_sync"] == true && types.len() == 2, "{theirs}");
        ensure!(types.iter().all(|it| it["held"] == it["wanted"] && it["held"].as_u64() > Some(0)), "{theirs}");
        anyhow::Ok(())
    })
    .unwrap();
    // One certificate: that of the account which runs on its node, signed by our root.
    wait::eventually(EFFECT, "its certificate", || {
        let dump: Value = serde_json::from_str(&stage.dump()?)?;
        let certificates = dump["certificates"].as_array().cloned().unwrap_or_default();
        let available: Vec<_> = certificates.iter().filter(|it| it["state"] == "Available").collect();
        ensure!(available.len() == 1 && certificates.len() == 1, "{certificates:?}");
        ensure!(available[0]["identity"] == "spiffe://cluster.local/ns/shop/sa/cart", "{}", available[0]["identity"]);
        anyhow::Ok(())
    })
    .unwrap();
    // The control plane goes and comes back: it resumes with what it holds.
    stage.mesh.server.restart().unwrap();
    stage.mesh.server.wait_ready().unwrap();
    let new = stage.add_theirs("till", "till-1").unwrap();
    let _server = Server::start(&new.netns, anywhere(), Behaviour::Echo).unwrap();
    wait::until(EFFECT, "an answer from the new pod through HBONE", || {
        outcome(&stage.ours.netns, Stage::app(&new, false), EFFECT) == Outcome::Answered("?".into())
    })
    .unwrap();
    stage.wait_their_log(&["direction=\"inbound\"", "dst.workload=\"till-1\"", "src.identity"]).unwrap();
    let errors: Vec<_> = stage.zds.exchanges().into_iter().filter(|it| !it.error.is_empty()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let port = |pod: &weft_testkit::netns::Pod| outcome(&stage.ours.netns, (pod.address(false), HBONE).into(), EFFECT);
    assert_ne!(port(&new), Outcome::Refused, "ztunnel listens in the new pod");
    stage.zds.delete("uid-of-till-1");
    wait::until(EFFECT, "the delete's answer", || {
        stage.zds.exchanges().iter().any(|it| it.said == "delete uid-of-till-1" && it.error.is_empty())
    })
    .unwrap();
}
