//! A fault of ours in the task of one connection ends that connection and nothing else. (One of a worker, of its pool or of
//! the control thread ends the program, so that its supervisor starts it again: `control/proxy_half.rs`.)

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use weft_model::change::Resource;

use crate::world::{APP_PORT, SERVICE_PORT, World, app, call, soon};
use crate::{CART, VIP, WEB, local};

/// Whoever calls from this address meets the fault.
const UNLUCKY: u8 = 9;

/// Stands for any assumption that does not hold: it is the one function of the data path that a test gives to it.
fn faulty(stream: &TcpStream) -> io::Result<SocketAddr> {
    let last = |ip| if let IpAddr::V4(ip) = ip { ip.octets()[3] } else { 0 };
    assert_ne!(last(stream.peer_addr()?.ip()), UNLUCKY, "an assumption of ours does not hold");
    stream.local_addr()
}

/// How many bytes are the answer. The reset may come while the call is still connecting.
async fn try_call(from: IpAddr, to: SocketAddr) -> io::Result<usize> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await?.read(&mut [0; 16]).await
}

#[tokio::test]
async fn a_panic_in_one_connection_ends_no_other() {
    local(async {
        let mut world = World::new();
        let (web, cart) = (world.workload("web", WEB), world.workload("cart1", CART));
        let service = world.cart(VIP);
        world.apply([Resource::Workload(web.clone()), Resource::Workload(cart.clone()), Resource::Service(service)]);
        let (mut near, mut far) = (world.agent_with("node-a", faulty), world.agent("node-b"));
        let vip = world.at(VIP, SERVICE_PORT);
        let uid = near.serve(&web, &[vip], &[]);
        far.serve(&cart, &[], &[]);
        let app = app(world.at(CART, APP_PORT)).await;
        let mut client = call(world.ip(WEB), vip).await;
        let (mut server, _) = soon(app.accept()).await.unwrap();
        for _ in 0..20 {
            let ended = soon(try_call(world.ip(UNLUCKY), vip)).await;
            assert!(matches!(ended, Ok(0) | Err(_)), "it ends, and is told nothing: {ended:?}");
        }
        // One that was open goes on, and a new one is served, by the same worker.
        client.write_all(b"on").await.unwrap();
        soon(server.read_exact(&mut [0; 2])).await.unwrap();
        let _next = call(world.ip(WEB), vip).await;
        let _served = soon(app.accept()).await.unwrap();
        assert!(!near.task.is_finished());
        assert_eq!(near.relaying(&uid), 2, "what the unlucky ones were counted as was given back");
    })
    .await;
}
