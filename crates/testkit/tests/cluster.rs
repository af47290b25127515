//! Lab, objects and processes together: what the files say, how a daemon lives and dies.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use weft_testkit::agents::{self, Daemon, DaemonPlan, require_system_program};
use weft_testkit::mesh::{Cluster, PodPlan, ServicePlan};
use weft_testkit::netns::Lab;
use weft_testkit::programs;
use weft_testkit::traffic::{Behaviour, Outcome, Server, outcome};

#[test]
fn objects_follow_the_lab() {
    weft_testkit::enter_or_skip!();
    let mut cluster = Cluster::new(Lab::builder().build().unwrap()).unwrap();
    cluster.namespace("shop", &[("team", "shop")]).unwrap();
    let web = cluster.pod(PodPlan::new("shop", "web", "web-1", 1)).unwrap();
    let cart = cluster.pod(PodPlan::new("shop", "cart", "cart-1", 2)).unwrap();
    let (v4, v6) = cluster.service(ServicePlan::new("shop", "cart", 80, 8080)).unwrap().unwrap();
    let _server = Server::start(&cart.netns, "[::]:8080".parse().unwrap(), Behaviour::Echo).unwrap();
    let ask = |address| outcome(&web.netns, SocketAddr::new(address, 80), Duration::from_secs(2));
    assert_eq!((ask(v4), ask(v6)), (Outcome::Answered("?".into()), Outcome::Answered("?".into())));
    let read = |name: &str| fs::read_to_string(cluster.directory().root().join(name)).unwrap();
    let pod = read("pod-shop-cart-1.yaml");
    for part in ["weft.dev/netns: \"lab", "nodeName: node2", "serviceAccountName: cart", "- ip: \"fd00:10:244:2::2\""] {
        assert!(pod.contains(part), "{part} in\n{pod}");
    }
    assert!(read("service-shop-cart.yaml").contains(&format!("clusterIP: \"{v4}\"")));
    cluster.change_pod("cart-1", |plan| plan.ready = false).unwrap();
    assert_eq!(ask(v4), Outcome::Refused, "no ready endpoint");
    cluster.change_pod("cart-1", |plan| plan.ready = true).unwrap();
    cluster.enrol("shop", true).unwrap();
    let file = cluster.directory().root().join("namespace-shop.yaml");
    assert!(fs::read_to_string(&file).unwrap().contains("weft.dev/mesh: \"enabled\""));
    cluster.enrol("shop", false).unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains("weft.dev/mesh"));
    cluster.remove_pod("cart-1").unwrap();
    assert_eq!(ask(v4), Outcome::Refused);
    // Only finished files lie there.
    let strange = fs::read_dir(cluster.directory().root()).unwrap().map(|entry| entry.unwrap().path());
    assert!(strange.into_iter().all(|path| path.extension().is_some_and(|ending| ending == "yaml")));
}

#[test]
fn a_daemon_lives_dies_and_comes_back() {
    weft_testkit::enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "web").unwrap();
    let root = lab.directory().join("www/healthz");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("ready"), "ok").unwrap();
    let www = root.parent().unwrap();
    let nginx = programs::nginx(&pod, www, "server { listen 8000; root .; }").unwrap();
    // The daemon enters the namespace by itself: the plan holds the program's own words, behind nsenter's "--".
    let command: Vec<_> = nginx.get_args().skip_while(|word| *word != "--").skip(1).map(Into::into).collect();
    let address: SocketAddr = "127.0.0.1:8000".parse().unwrap();
    let mut daemon = Daemon::start(DaemonPlan {
        name: "www".into(),
        netns: pod.netns.clone(),
        command,
        environment: Vec::new(),
        health: Some(address),
        logs: lab.directory().join("logs"),
    })
    .unwrap();
    daemon.wait_ready().unwrap();
    assert_eq!(daemon.get(address, "/healthz/ready").unwrap(), "ok");
    let first = daemon.process().pid();
    daemon.kill9().unwrap();
    assert!(agents::get(&pod.netns, address, "/").is_err());
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    assert_ne!(daemon.process().pid(), first);
    daemon.terminate().unwrap();
    assert!(require_system_program("no-such-program").unwrap_err().to_string().contains("make setup"));
}
