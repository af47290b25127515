//! The data path end to end over loopback: client, outbound, TLS and HTTP/2, inbound, application, in one process and without
//! capture. What only a network namespace can show (spoofed sources, TPROXY) is in `proxy_netns`.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod attacks;
mod certificates;
mod ends;
#[path = "../common/issuer.rs"]
mod issuer;
mod limits;
mod panics;
mod slow;
mod world;

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use weft_hbone::{Authority, ConnectHead, OpenError, client};
use weft_identity::tls;
use weft_model::authz::{Action, Group, Match, Mode, Policy, PolicyKey, Rule, Scope};
use weft_model::change::Resource;
use weft_model::workload::TunnelProtocol;
use weft_model::{Reason, SpiffeId};
use weft_node_agent::pods::PodUid;
use weft_node_agent::telemetry::{Direction, Security};
use weft_node_agent::worker::run::WorkerCommand;
use weft_node_agent::worker::shard::SOURCE_PORTS;

use world::{APP_PORT, Agent, SERVICE_PORT, World, app, call, soon};

const WEB: u8 = 1;
const CART: u8 = 2;
const CART2: u8 = 3;
const VIP: u8 = 100;

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

struct Pair {
    world: World,
    web: Agent,
    cart: Agent,
    web_uid: PodUid,
    cart_uid: PodUid,
}

/// `web` on one node, `cart` on another, behind a VIP.
fn two_nodes() -> Pair {
    two_nodes_of(World::new())
}

fn two_nodes_of(mut world: World) -> Pair {
    let (web_pod, cart_pod) = (world.workload("web", WEB), world.workload("cart1", CART));
    let service = world.cart(VIP);
    world.apply([
        Resource::Workload(web_pod.clone()),
        Resource::Workload(cart_pod.clone()),
        Resource::Service(service),
    ]);
    let (mut web, mut cart) = (world.agent("node-a"), world.agent("node-b"));
    let web_uid = web.serve(&web_pod, &[world.at(VIP, SERVICE_PORT)], &[]);
    let cart_uid = cart.serve(&cart_pod, &[], &[]);
    Pair { world, web, cart, web_uid, cart_uid }
}

impl Pair {
    async fn app(&self) -> TcpListener {
        app(self.world.at(CART, APP_PORT)).await
    }

    async fn call(&self) -> TcpStream {
        call(self.world.ip(WEB), self.world.at(VIP, SERVICE_PORT)).await
    }

    /// A call and the application's end of it, proven to be joined.
    async fn joined(&self, app: &TcpListener) -> (TcpStream, TcpStream) {
        let mut client = self.call().await;
        let (mut server, _) = soon(app.accept()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        soon(server.read_exact(&mut hello)).await.unwrap();
        (client, server)
    }
}

fn policy(name: &str, action: Action, found: Vec<Match>) -> Resource {
    let groups = vec![Group { rules: vec![Rule { matches: found }] }];
    let key = PolicyKey::new("shop", name);
    Resource::Policy(Policy { key, scope: Scope::Namespace, action, mode: Mode::Enforce, groups })
}

fn deny(port: u16) -> Resource {
    policy("deny", Action::Deny, vec![Match { destination_ports: vec![port], ..Match::default() }])
}

async fn is_reset(stream: &mut TcpStream) {
    let outcome = soon(stream.read(&mut [0; 16])).await;
    assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn through_the_tunnel_with_half_close_both_ways() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let mut client = pair.call().await;
        let (mut server, peer) = soon(app.accept()).await.unwrap();
        assert!(SOURCE_PORTS.contains(&peer.port()), "{peer}");
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        soon(server.read_to_end(&mut question)).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(b"answer after the end of the question").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        soon(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"answer after the end of the question");

        let outbound = pair.world.record(Direction::Outbound).await;
        let inbound = pair.world.record(Direction::Inbound).await;
        for record in [&outbound, &inbound] {
            assert_eq!((record.reason, record.security), (None, Security::MutualTls), "{record:?}");
            assert_eq!((record.sent, record.received), (8, 36));
            assert_eq!(record.source_identity.as_ref().unwrap().service_account(), "web");
            assert_eq!(record.destination_identity.as_ref().unwrap().service_account(), "cart");
        }
        assert_eq!(&*outbound.service.unwrap().name, "cart");
        assert_eq!(inbound.destination, pair.world.at(CART, APP_PORT));
    })
    .await;
}

#[tokio::test]
async fn the_server_may_speak_first() {
    local(async {
        let pair = two_nodes();
        let app = pair.app().await;
        let mut client = pair.call().await;
        let (mut server, _) = soon(app.accept()).await.unwrap();
        server.write_all(b"220 ready").await.unwrap();
        let mut greeting = [0; 9];
        soon(client.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting, b"220 ready");
    })
    .await;
}

#[tokio::test]
async fn bulk_both_ways_at_once() {
    local(async {
        let pair = two_nodes();
        let app = pair.app().await;
        let (client, server) = pair.joined(&app).await;
        let pattern: Vec<u8> = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let exchange = async |stream: TcpStream| {
            let (mut read, mut write) = stream.into_split();
            let sent = pattern.clone();
            let writing = async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, result) = tokio::join!(writing, read.read_to_end(&mut received));
            result.unwrap();
            assert!(received == pattern);
        };
        soon(async { tokio::join!(exchange(client), exchange(server)) }).await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_stays_a_reset_in_both_directions() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut client, server) = pair.joined(&app).await;
        server.set_zero_linger().unwrap();
        drop(server);
        is_reset(&mut client).await;
        assert_eq!(pair.world.reasons().await, (Some(Reason::Reset), Some(Reason::Reset)));
        let (client, mut server) = pair.joined(&app).await;
        client.set_zero_linger().unwrap();
        drop(client);
        is_reset(&mut server).await;
    })
    .await;
}

#[tokio::test]
async fn an_application_that_is_not_there_refuses_with_a_reset() {
    local(async {
        let mut pair = two_nodes();
        is_reset(&mut pair.call().await).await;
        assert_eq!(pair.world.reasons().await, (Some(Reason::ConnectRefused), Some(Reason::ConnectRefused)));
    })
    .await;
}

#[tokio::test]
async fn a_denied_call_is_reset_and_both_sides_know_why() {
    local(async {
        let mut pair = two_nodes();
        let _app = pair.app().await;
        pair.world.apply([deny(APP_PORT)]);
        is_reset(&mut pair.call().await).await;
        let inbound = pair.world.record(Direction::Inbound).await;
        assert_eq!(inbound.reason, Some(Reason::PolicyDenied));
        assert_eq!(inbound.policy, Some(Box::new(PolicyKey::new("shop", "deny"))));
        assert_eq!(pair.world.record(Direction::Outbound).await.reason, Some(Reason::PolicyDenied));
    })
    .await;
}

#[tokio::test]
async fn a_live_connection_is_cut_when_the_policy_changes_and_not_before() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut client, mut server) = pair.joined(&app).await;
        pair.world.apply([deny(APP_PORT + 1)]);
        tokio::time::sleep(Duration::from_millis(60)).await;
        server.write_all(b"still here").await.unwrap();
        let mut here = [0; 10];
        soon(client.read_exact(&mut here)).await.unwrap();
        pair.world.apply([deny(APP_PORT)]);
        is_reset(&mut client).await;
        is_reset(&mut server).await;
        assert_eq!(pair.world.record(Direction::Inbound).await.reason, Some(Reason::PolicyChanged));
    })
    .await;
}

#[tokio::test]
async fn a_live_connection_is_cut_when_its_workload_names_another_policy() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut client, _server) = pair.joined(&app).await;
        let mut workload = pair.world.workload("cart1", CART);
        workload.policies = vec![PolicyKey::new("shop", "unknown-here")];
        pair.world.apply([Resource::Workload(workload)]);
        is_reset(&mut client).await;
    })
    .await;
}

/// A stock istiod sends the workload that names a policy before the policy, in another message (seen: every live connection
/// of the workload was cut, also of those whom the policy permits).
#[tokio::test]
async fn a_policy_may_come_behind_the_workload_that_names_it() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut client, mut server) = pair.joined(&app).await;
        let mut workload = pair.world.workload("cart1", CART);
        workload.policies = vec![PolicyKey::new("shop", "deny")];
        pair.world.apply([Resource::Workload(workload)]);
        let mut second = pair.call().await;
        second.write_all(b"early").await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        pair.world.apply([deny(APP_PORT + 1)]);
        let (mut served, _) = soon(app.accept()).await.unwrap();
        soon(served.read_exact(&mut [0; 5])).await.unwrap();
        server.write_all(b"still here").await.unwrap();
        soon(client.read_exact(&mut [0; 10])).await.unwrap();
        // Now it is known, what it says counts at once.
        pair.world.apply([deny(APP_PORT)]);
        is_reset(&mut client).await;
        is_reset(&mut second).await;
    })
    .await;
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_does_not_answer() {
    local(async {
        let mut pair = two_nodes();
        // In the mesh, but nobody listens there.
        let dead = pair.world.workload("cart2", CART2);
        pair.world.apply([Resource::Workload(dead)]);
        let app = pair.app().await;
        for _ in 0..12 {
            let (mut client, server) = pair.joined(&app).await;
            drop(server);
            assert_eq!(soon(client.read(&mut [0; 1])).await.unwrap(), 0);
            drop(client);
            assert_eq!(pair.world.record(Direction::Outbound).await.reason, None);
        }
    })
    .await;
}

#[tokio::test]
async fn without_any_endpoint_the_first_failure_is_told() {
    local(async {
        let mut world = World::new();
        world.connect_timeout = Duration::from_millis(500);
        let mut pair = two_nodes_of(world);
        let dead = [pair.world.workload("cart1", CART2), pair.world.workload("cart2", CART2 + 1)];
        pair.world.apply(dead.map(Resource::Workload));
        is_reset(&mut pair.call().await).await;
        assert_eq!(pair.world.record(Direction::Outbound).await.reason, Some(Reason::TunnelRefused));
    })
    .await;
}

#[tokio::test]
async fn another_identity_at_the_address_is_refused() {
    local(async {
        let mut pair = two_nodes();
        let _app = pair.app().await;
        let mut expected = pair.world.workload("cart1", CART);
        expected.service_account = "somebody-else".into();
        pair.world.apply([Resource::Workload(expected)]);
        is_reset(&mut pair.call().await).await;
        assert_eq!(pair.world.record(Direction::Outbound).await.reason, Some(Reason::PeerIdentityMismatch));
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_the_mesh_does_not_know_yet_waits() {
    local(async {
        let mut world = World::new();
        let (web_pod, cart_pod) = (world.workload("web", WEB), world.workload("cart1", CART));
        let service = world.cart(VIP);
        let (mut web, mut cart) = (world.agent("node-a"), world.agent("node-b"));
        web.serve(&web_pod, &[world.at(VIP, SERVICE_PORT)], &[]);
        cart.serve(&cart_pod, &[], &[]);
        let app = app(world.at(CART, APP_PORT)).await;
        let mut client = call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.apply([Resource::Service(service), Resource::Workload(cart_pod), Resource::Workload(web_pod)]);
        let (mut server, _) = soon(app.accept()).await.unwrap();
        server.write_all(b"!").await.unwrap();
        assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
    })
    .await;
}

#[tokio::test]
async fn past_the_mesh_and_to_endpoints_outside_it() {
    local(async {
        let mut pair = two_nodes();
        let mut outside = pair.world.workload("cart1", CART);
        outside.tunnel = TunnelProtocol::None;
        pair.world.apply([Resource::Workload(outside)]);
        let app = pair.app().await;
        let (client, server) = pair.joined(&app).await;
        drop((client, server));
        let record = pair.world.record(Direction::Outbound).await;
        assert_eq!((record.security, record.destination_workload.is_some()), (Security::Plaintext, true));
    })
    .await;
}

#[tokio::test]
async fn two_pods_of_one_node_are_joined_without_a_tunnel() {
    local(async {
        let mut world = World::new();
        let (web_pod, cart_pod) = (world.workload("web", WEB), world.workload("cart1", CART));
        let service = world.cart(VIP);
        world.apply([
            Resource::Workload(web_pod.clone()),
            Resource::Workload(cart_pod.clone()),
            Resource::Service(service),
        ]);
        let mut agent = world.agent("node-a");
        let web_uid = agent.serve(&web_pod, &[world.at(VIP, SERVICE_PORT)], &[]);
        let cart_uid = agent.serve(&cart_pod, &[], &[]);
        let app = app(world.at(CART, APP_PORT)).await;
        let mut client = call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await;
        let (mut server, peer) = soon(app.accept()).await.unwrap();
        assert_eq!(peer.ip(), world.ip(WEB), "the client's own address");
        assert!(SOURCE_PORTS.contains(&peer.port()));
        client.write_all(b"?").await.unwrap();
        assert_eq!(soon(server.read_u8()).await.unwrap(), b'?');
        assert_eq!((agent.relaying(&web_uid), agent.relaying(&cart_uid)), (1, 1));
        // The same policy, with the identity of the pod that the connection came from.
        world.apply([deny(APP_PORT)]);
        is_reset(&mut client).await;
        is_reset(&mut server).await;
        let inbound = world.record(Direction::Inbound).await;
        assert_eq!((inbound.security, inbound.reason), (Security::SameNode, Some(Reason::PolicyChanged)));
        assert_eq!(inbound.source_identity.unwrap().service_account(), "web");
        is_reset(&mut call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await).await;
        assert_eq!(world.record(Direction::Inbound).await.reason, Some(Reason::PolicyDenied));
        assert_eq!((agent.relaying(&web_uid), agent.relaying(&cart_uid)), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn plaintext_enters_unless_policy_asks_for_more() {
    local(async {
        let mut world = World::new();
        let cart_pod = world.workload("cart1", CART);
        world.apply([Resource::Workload(cart_pod.clone())]);
        let mut agent = world.agent_with("node-b", |stream| {
            stream.local_addr().map(|address| std::net::SocketAddr::new(address.ip(), APP_PORT))
        });
        let captured = world.at(CART, 7070);
        agent.serve(&cart_pod, &[], &[captured]);
        let app = app(world.at(CART, APP_PORT)).await;
        let mut client = call(world.ip(50), captured).await;
        let (mut server, peer) = soon(app.accept()).await.unwrap();
        assert_eq!(peer.ip(), world.ip(50), "the client's own address");
        server.write_all(b"!").await.unwrap();
        assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
        drop((client, server));
        let record = world.record(Direction::Inbound).await;
        assert_eq!((record.security, record.source_identity.clone()), (Security::Plaintext, None));
        assert_eq!(record.received, 1, "bytes from server to client: {record:?}");
        let nobody = Match { not_principals: vec![weft_model::authz::StringMatch::Presence], ..Match::default() };
        world.apply([policy("strict", Action::Deny, vec![nobody])]);
        is_reset(&mut call(world.ip(50), captured).await).await;
        assert_eq!(world.record(Direction::Inbound).await.reason, Some(Reason::MtlsRequired));
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_goes_takes_its_connections_with_it() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut client, mut server) = pair.joined(&app).await;
        assert_eq!((pair.web.relaying(&pair.web_uid), pair.cart.relaying(&pair.cart_uid)), (1, 1));
        pair.cart.commands.send(WorkerCommand::RemovePod { uid: pair.cart_uid.clone() }).unwrap();
        is_reset(&mut client).await;
        is_reset(&mut server).await;
        assert_eq!(pair.world.record(Direction::Inbound).await.reason, Some(Reason::WorkloadGone));
        is_reset(&mut pair.call().await).await;
    })
    .await;
}

#[tokio::test]
async fn live_connections_can_be_listed() {
    local(async {
        let pair = two_nodes();
        let app = pair.app().await;
        let (_client, _server) = pair.joined(&app).await;
        for (agent, direction) in [(&pair.web, "outbound"), (&pair.cart, "inbound")] {
            let (reply, rows) = tokio::sync::oneshot::channel();
            agent.commands.send(WorkerCommand::Connections(reply)).unwrap();
            let rows = soon(rows).await.unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!((rows[0].direction.as_str(), rows[0].security.as_str(), rows[0].sent), (direction, "mtls", 5));
            assert_eq!(rows[0].destination_workload.as_deref(), Some("shop/cart1"));
        }
    })
    .await;
}

#[tokio::test]
async fn garbage_at_the_tunnel_port_is_refused_and_said() {
    local(async {
        let mut pair = two_nodes();
        let mut garbage = call(pair.world.ip(WEB), pair.world.at(CART, 15008)).await;
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // An alert or nothing, then the end.
        let mut rest = Vec::new();
        let _ = soon(garbage.read_to_end(&mut rest)).await;
        assert_eq!(pair.world.record(Direction::Inbound).await.reason, Some(Reason::TlsFailed));
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_asks_for_the_wrong_thing_gets_status_and_reason() {
    local(async {
        let pair = two_nodes();
        let _app = pair.app().await;
        let web = SpiffeId::new("cluster.local", "shop", "web").unwrap();
        let cart = SpiffeId::new("cluster.local", "shop", "cart").unwrap();
        let config = tls::client_config(&pair.world.credentials(&web), &[cart]).unwrap();
        let tcp = call(pair.world.ip(WEB), pair.world.at(CART, 15008)).await;
        let stream = soon(Box::pin(tls::connect(tcp, config))).await.unwrap();
        let (connection, driver) = soon(Box::pin(client::handshake(stream, &Default::default()))).await.unwrap();
        tokio::task::spawn_local(driver);
        let own = pair.world.ip(CART);
        for (authority, status, reason) in [
            (format!("{}:80", pair.world.ip(CART2)), 400, "wrong-destination"),
            ("nobody.shop.svc.cluster.local:80".to_owned(), 400, "wrong-destination"),
            ("cart.shop.svc.cluster.local:81".to_owned(), 503, "port-unresolved"),
            (format!("{own}:15001"), 503, "reserved-port"),
            (format!("{own}:1"), 503, "connect-refused"),
        ] {
            let head = ConnectHead::new(authority.parse::<Authority>().unwrap());
            let error = soon(connection.open(&head)).await.unwrap_err();
            let expected = OpenError::Refused { status, reason: Some(reason.to_owned()) };
            assert_eq!(error, expected, "{authority}");
        }
        let head = ConnectHead::new("cart.shop.svc.cluster.local:8080".parse::<Authority>().unwrap());
        let tunnel = soon(connection.open(&head)).await.unwrap();
        assert_eq!(
            tunnel.peer_baggage(),
            Some("k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=cart1")
        );
    })
    .await;
}
