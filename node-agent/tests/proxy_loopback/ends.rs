//! How an agent ends: with connections open, with a successor beside it, and alone.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use weft_model::change::Resource;
use weft_model::workload::TunnelProtocol;
use weft_model::{Reason, Workload};
use weft_node_agent::handover::WorkerListeners;
use weft_node_agent::telemetry::Direction;
use weft_node_agent::worker::run::WorkerCommand;

use crate::world::{self, APP_PORT, SERVICE_PORT, World, app, call, listener, soon};
use crate::{CART, VIP, WEB, is_reset, local, two_nodes};

/// `web` on one node, which calls a service whose only endpoint is no pod of the mesh.
fn web_and_outside() -> (World, Workload) {
    let mut world = World::new();
    let mut outside = world.workload("cart1", CART);
    outside.tunnel = TunnelProtocol::None;
    let web_pod = world.workload("web", WEB);
    let service = world.cart(VIP);
    world.apply([Resource::Workload(outside), Resource::Workload(web_pod.clone()), Resource::Service(service)]);
    (world, web_pod)
}

#[tokio::test]
async fn a_drain_lets_connections_end_until_the_deadline() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut short, mut short_server) = pair.joined(&app).await;
        let (mut long, _long_server) = pair.joined(&app).await;
        let deadline = Instant::now() + Duration::from_millis(400);
        pair.cart.commands.send(WorkerCommand::Drain { deadline }).unwrap();
        short_server.write_all(b"last words").await.unwrap();
        drop(short_server);
        let mut words = Vec::new();
        soon(short.read_to_end(&mut words)).await.unwrap();
        assert_eq!(words, b"last words");
        drop(short);
        is_reset(&mut long).await;
        assert!(Instant::now() >= deadline);
        soon(&mut pair.cart.task).await.unwrap();
        let ends =
            [pair.world.record(Direction::Inbound).await.reason, pair.world.record(Direction::Inbound).await.reason];
        assert_eq!(ends, [None, Some(Reason::Draining)]);
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_at_once_when_nothing_is_open() {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        drop(pair.joined(&app).await);
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs(30);
        pair.cart.commands.send(WorkerCommand::Drain { deadline }).unwrap();
        soon(&mut pair.cart.task).await.unwrap();
        pair.web.commands.send(WorkerCommand::Drain { deadline }).unwrap();
        soon(&mut pair.web.task).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5));
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_ends_alone_serves_whoever_waits_in_its_queue() {
    const WAITING: usize = 20;
    local(async {
        let (world, web_pod) = web_and_outside();
        let app = app(world.at(CART, APP_PORT)).await;
        let own = listener(world.at(VIP, SERVICE_PORT));
        let mut agent = world.agent("node-a");
        agent.serve_at(&web_pod, WorkerListeners { outbound: vec![own], ..WorkerListeners::default() });
        let mut first = call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await;
        let (mut first_server, _) = soon(app.accept()).await.unwrap();
        // Without a turn of this thread in between: all of them wait in the kernel's queue when the agent hears of its end.
        let connect = || std::net::TcpStream::connect(world.at(VIP, SERVICE_PORT)).unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|_| connect()).collect();
        agent.commands.send(WorkerCommand::Close).unwrap();
        let mut served = vec![];
        for stream in waiting {
            stream.set_nonblocking(true).unwrap();
            let (mut server, _) = soon(app.accept()).await.unwrap();
            server.write_all(b"!").await.unwrap();
            served.push((tokio::net::TcpStream::from_std(stream).unwrap(), server));
        }
        agent.commands.send(WorkerCommand::Drain { deadline: Instant::now() + world::SOON }).unwrap();
        for (client, _server) in &mut served {
            assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
        }
        first_server.write_all(b"!").await.unwrap();
        assert_eq!(soon(first.read_u8()).await.unwrap(), b'!');
        drop((served, first, first_server));
        soon(&mut agent.task).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_successor_takes_the_queue_while_the_retired_one_finishes() {
    local(async {
        let (world, web_pod) = web_and_outside();
        let app = app(world.at(CART, APP_PORT)).await;
        // The capture half holds the listener open over both.
        let held = listener(world.at(VIP, SERVICE_PORT));
        let copy = || WorkerListeners { outbound: vec![held.try_clone().unwrap()], ..WorkerListeners::default() };
        let (mut old, mut new) = (world.agent("node-a"), world.agent("node-a"));
        old.serve_at(&web_pod, copy());
        let mut before = call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await;
        let (mut before_server, _) = soon(app.accept()).await.unwrap();
        old.commands.send(WorkerCommand::Retire).unwrap();
        old.commands.send(WorkerCommand::Drain { deadline: Instant::now() + world::SOON }).unwrap();
        let (reply, rows) = tokio::sync::oneshot::channel();
        old.commands.send(WorkerCommand::Connections(reply)).unwrap();
        assert_eq!(soon(rows).await.unwrap().len(), 1);
        // Completes in the kernel's queue.
        let mut between = call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await;
        new.serve_at(&web_pod, copy());
        let (mut between_server, _) = soon(app.accept()).await.unwrap();
        for (client, server) in [(&mut before, &mut before_server), (&mut between, &mut between_server)] {
            server.write_all(b"!").await.unwrap();
            assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
        }
        assert!(!old.task.is_finished());
        drop(before_server);
        assert_eq!(soon(before.read(&mut [0])).await.unwrap(), 0);
        drop(before);
        soon(&mut old.task).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_call_waits_for_an_agent_that_is_away_for_a_moment() {
    local(async {
        let mut world = World::new();
        let (web_pod, cart_pod) = (world.workload("web", WEB), world.workload("cart1", CART));
        let service = world.cart(VIP);
        world.apply([
            Resource::Service(service),
            Resource::Workload(cart_pod.clone()),
            Resource::Workload(web_pod.clone()),
        ]);
        let (mut web, mut cart) = (world.agent("node-a"), world.agent("node-b"));
        web.serve(&web_pod, &[world.at(VIP, SERVICE_PORT)], &[]);
        let app = app(world.at(CART, APP_PORT)).await;
        let mut client = call(world.ip(WEB), world.at(VIP, SERVICE_PORT)).await;
        let answer = tokio::time::timeout(Duration::from_millis(500), client.read_u8()).await;
        assert!(answer.is_err(), "neither reset nor answered while nobody is at port 15008: {answer:?}");
        cart.serve(&cart_pod, &[], &[]);
        let (mut server, _) = soon(app.accept()).await.unwrap();
        server.write_all(b"!").await.unwrap();
        assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
    })
    .await;
}
