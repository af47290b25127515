//! Certificates that end while connections live.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_identity::signer::LeafLifetime;
use weft_model::{Reason, SpiffeId};
use weft_node_agent::telemetry::Direction;
use weft_node_agent::worker::credentials::CredentialSource;

use crate::issuer::Issuer;
use crate::world::{World, soon};
use crate::{local, two_nodes_of};

/// Long enough for the first calls on a busy machine, short enough to wait for.
const LIFE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn after_its_certificates_a_tunnel_connection_takes_no_new_tunnel_and_live_ones_go_on() {
    local(async {
        let issuer = Issuer::with_life(LeafLifetime::up_to(LIFE));
        let mut pair = two_nodes_of(World::with_issuer(issuer));
        let app = pair.app().await;
        let web: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let (mut client, mut server) = pair.joined(&app).await;
        pair.world.issuer.away.store(true, Ordering::Relaxed);
        while pair.world.issuer.current(&web).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The first call's connection stands, but who it belongs to is proven no longer.
        let mut late = pair.call().await;
        let end = soon(late.read(&mut [0])).await;
        assert!(end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        let refused = pair.world.record(Direction::Outbound).await;
        assert_eq!(refused.reason, Some(Reason::NoCertificate), "at {:?}", SystemTime::now());
        client.write_all(b"still").await.unwrap();
        let mut still = [0; 5];
        soon(server.read_exact(&mut still)).await.unwrap();
        assert_eq!(&still, b"still");
        // The CA is back: nothing is restarted.
        pair.world.issuer.away.store(false, Ordering::Relaxed);
        let _joined = pair.joined(&app).await;
    })
    .await;
}
