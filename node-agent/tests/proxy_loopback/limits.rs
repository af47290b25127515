//! What one pod, one peer and all together may hold, and that nobody else feels it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_model::Reason;
use weft_model::change::Resource;
use weft_model::service::ServiceAddress;
use weft_node_agent::pods::PodUid;
use weft_node_agent::telemetry::Direction;
use weft_node_agent::worker::limits::{HANDSHAKES_PER_PEER, Limits};
use weft_runtime::budget::Budget;

use crate::local;
use crate::world::{APP_PORT, Agent, SERVICE_PORT, World, app, call, soon};

const CART: u8 = 2;
/// Two client pods of one node, and the address at which each of them calls the service.
const CLIENTS: [(&str, u8, u8); 2] = [("web1", 10, 110), ("web2", 11, 111)];

struct Scene {
    world: World,
    clients: Agent,
    _server: Agent,
    uids: Vec<PodUid>,
    app: TcpListener,
}

async fn scene(limits: Limits) -> Scene {
    let mut world = World::new();
    world.limits = limits;
    let cart = world.workload("cart1", CART);
    let mut service = world.cart(CLIENTS[0].2);
    service.addresses.push(ServiceAddress::single("", world.ip(CLIENTS[1].2)));
    let pods = CLIENTS.map(|(name, last, _)| world.workload(name, last));
    world.apply([Resource::Workload(cart.clone()), Resource::Service(service)]);
    world.apply(pods.clone().map(Resource::Workload));
    let (mut clients, mut server) = (world.agent("node-a"), world.agent("node-b"));
    server.serve(&cart, &[], &[]);
    let at = CLIENTS.map(|(_, _, vip)| world.at(vip, SERVICE_PORT));
    let uids = pods.iter().zip(at).map(|(pod, at)| clients.serve(pod, &[at], &[])).collect();
    let app = app(world.at(CART, APP_PORT)).await;
    Scene { world, clients, _server: server, uids, app }
}

impl Scene {
    fn from(&self, client: usize) -> (IpAddr, SocketAddr) {
        let (_, last, vip) = CLIENTS[client];
        (self.world.ip(last), self.world.at(vip, SERVICE_PORT))
    }

    async fn call(&self, client: usize) -> TcpStream {
        let (from, to) = self.from(client);
        call(from, to).await
    }

    /// A call of that client and the application's end of it.
    async fn joined(&self, client: usize) -> (TcpStream, TcpStream) {
        let mut near = self.call(client).await;
        near.write_all(b"x").await.unwrap();
        let (mut far, _) = soon(self.app.accept()).await.unwrap();
        soon(far.read_exact(&mut [0])).await.unwrap();
        (near, far)
    }

    /// A call of that client is reset, for this reason in the client's record.
    async fn is_shed(&mut self, client: usize, reason: Reason) {
        let mut stream = self.call(client).await;
        // The reset may overtake the write.
        let _gone = stream.write_all(b"x").await;
        let read = soon(stream.read(&mut [0])).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        let record = self.world.record(Direction::Outbound).await;
        assert_eq!(record.reason, Some(reason), "{record:?}");
        assert!(record.source_identity.is_some());
    }
}

#[tokio::test]
async fn a_pod_at_its_limit_is_shed_and_its_neighbour_is_not() {
    local(async {
        let mut scene = scene(Limits::of(1 << 20, Some(3), Budget::unlimited())).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(scene.joined(0).await);
        }
        scene.is_shed(0, Reason::PodConnectionLimit).await;
        let neighbour = scene.joined(1).await;
        drop(held.pop());
        scene.world.record(Direction::Outbound).await;
        held.push(scene.joined(0).await);
        // What comes in to the server is bounded, too, at twice the number: 4 live, 2 more fit.
        let more = (scene.joined(1).await, scene.joined(1).await);
        drop((held.pop(), neighbour));
        scene.world.record(Direction::Outbound).await;
        scene.world.record(Direction::Outbound).await;
        drop((more, held));
    })
    .await;
}

#[tokio::test]
async fn calls_to_a_pod_at_its_limit_are_refused_at_both_ends() {
    local(async {
        let mut scene = scene(Limits::of(1 << 20, Some(1), Budget::unlimited())).await;
        let _held = (scene.joined(0).await, scene.joined(1).await);
        // A third one, past the clients' own limit: their agent is asked to forget it.
        let pod = scene.world.workload("web3", 12);
        let mut service = scene.world.cart(112);
        service.addresses.push(ServiceAddress::single("", scene.world.ip(CLIENTS[0].2)));
        scene.world.apply([Resource::Workload(pod.clone()), Resource::Service(service)]);
        let at = scene.world.at(112, SERVICE_PORT);
        scene.clients.serve(&pod, &[at], &[]);
        let mut stream = call(scene.world.ip(12), at).await;
        let read = soon(stream.read(&mut [0])).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        let reasons = scene.world.reasons().await;
        assert_eq!(reasons, (Some(Reason::PodConnectionLimit), Some(Reason::PodConnectionLimit)));
    })
    .await;
}

#[tokio::test]
async fn without_descriptors_or_memory_connections_are_shed_until_there_are_some() {
    local(async {
        scene(Limits::of(8, Some(100), Budget::unlimited())).await.is_shed(0, Reason::DescriptorLimit).await;
        let budget = Budget::new(1 << 20);
        let mut scene = scene(Limits::of(1 << 20, Some(100), budget.clone())).await;
        budget.take(1 << 20);
        scene.is_shed(0, Reason::MemoryLimit).await;
        budget.release(1 << 20);
        let before = scene.joined(0).await;
        assert!(budget.used() > 0, "a connection is charged");
        budget.set_strained(true);
        scene.is_shed(1, Reason::MemoryLimit).await;
        budget.set_strained(false);
        drop((before, scene.joined(1).await));
        scene.world.reasons().await;
        scene.world.reasons().await;
        assert_eq!(budget.used(), 0);
    })
    .await;
}

#[tokio::test]
async fn handshakes_that_one_address_leaves_open_stop_nobody_else() {
    local(async {
        let mut scene = scene(Limits::default()).await;
        let stranger = scene.world.ip(99);
        let hbone = scene.world.at(CART, 15008);
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES_PER_PEER {
            silent.push(call(stranger, hbone).await);
        }
        let mut one_more = call(stranger, hbone).await;
        let read = soon(one_more.read(&mut [0])).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        let record = scene.world.record(Direction::Inbound).await;
        assert_eq!((record.reason, record.source.ip()), (Some(Reason::PeerHandshakeLimit), stranger));
        scene.joined(0).await;
        drop(silent);
    })
    .await;
}

/// A flood waits in its own queue: by the time that a neighbour's call, which came after all of it, stands, the flood has had
/// some turns and not all of its connections.
#[tokio::test]
async fn a_flooded_listener_does_not_stop_its_neighbour() {
    const FLOOD: u64 = 120;
    local(async {
        let scene = scene(Limits::default()).await;
        drop(scene.joined(1).await); // the tunnel stands
        // Without a turn for the worker: the kernel completes them, and they wait in the queue.
        let dial = |client, word: &[u8]| {
            let (from, to) = scene.from(client);
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
            socket.connect(&to.into()).unwrap();
            assert_eq!(socket.send(word).unwrap(), 1);
            socket
        };
        let flood: Vec<_> = (0..FLOOD).map(|_| dial(0, b"f")).collect();
        let neighbour = dial(1, b"n");
        let mut served = Vec::new();
        loop {
            let (mut stream, _) = soon(scene.app.accept()).await.unwrap();
            let mut word = [0];
            soon(stream.read_exact(&mut word)).await.unwrap();
            served.push(stream);
            if word == *b"n" {
                break;
            }
        }
        let taken = scene.clients.relaying(&scene.uids[0]);
        assert!(taken < FLOOD * 3 / 4, "{taken} of {FLOOD} connections of the flood went first");
        drop((flood, neighbour, served));
    })
    .await;
}
