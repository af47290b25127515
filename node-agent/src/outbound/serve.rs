//! A captured pod's own calls (port 15001): decide, connect, join. Nothing is read from the application before the far end
//! stands, so protocols in which the server speaks first wait for nothing.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;
use weft_hbone::relay::{relay_sockets, relay_tunnel};
use weft_hbone::{RelayEnd, RelayOutcome, Side};
use weft_model::address::OriginalDst;
use weft_model::ejection::{Fault, Subject};

use super::connect::Peer;
use super::reach::{Reached, reach};
use crate::telemetry::{ConnectionRecord, Direction};
use crate::worker::address::canonical;
use crate::worker::connections::Live;
use crate::worker::failure::Failure;
use crate::worker::set_up::SetUp;
use crate::worker::shard::{Pod, Shard};
use crate::worker::steps::{Relaying, in_turns, in_two_steps};

/// Serves one captured connection to its end. A refusal is a reset: the socket is not closed in order unless the relay was.
pub fn serve_outbound(
    shard: Rc<Shard>,
    pod: Rc<Pod>,
    accepted: (TcpStream, SocketAddr),
    set_up: SetUp,
) -> impl Future<Output = ()> {
    in_two_steps(begin(shard, pod, accepted, set_up))
}

async fn begin(
    shard: Rc<Shard>,
    pod: Rc<Pod>,
    (mut stream, client): (TcpStream, SocketAddr),
    set_up: SetUp,
) -> Option<Relaying> {
    // An error: it is gone already.
    let original = (shard.environment.original_destination)(&stream).ok()?;
    let (client, original) = (canonical(client), canonical(original));
    let mut record = ConnectionRecord::new(Direction::Outbound, client, original);
    record.source_identity = Some(pod.served.identity.clone());
    let (live, mut cut) = shard.connections.register(record, &pod.info().uid, &pod.served.load);
    live.sets_up(set_up);
    let connected = tokio::select! {
        connected = reach(&shard, &pod, &live, OriginalDst(original)) => connected,
        reason = cut.wait() => Err(reason.into()),
    };
    let Reached { peer, _counted: counted, port, begun } = match connected {
        Ok(reached) => reached,
        Err(Failure { reason, detail }) => {
            live.refuse(reason, detail);
            return None;
        }
    };
    live.opened();
    let (about, turns) = ((port, begun), shard.turns_of(client));
    Some(match peer {
        Peer::Socket(mut peer) => in_turns(turns, async move {
            let outcome = relay_sockets(&mut stream, &mut peer, &shard.buffers, live.traffic(), cut.comes()).await;
            drop((stream, peer));
            judge(&shard, &live, about, &outcome);
            live.finish(&outcome);
            drop(counted);
        }),
        Peer::Tunnel(mut tunnel) => in_turns(turns, async move {
            let outcome = relay_tunnel(&mut stream, &mut tunnel, &shard.buffers, live.traffic(), cut.comes()).await;
            drop((stream, tunnel));
            judge(&shard, &live, about, &outcome);
            live.finish(&outcome);
            drop(counted);
        }),
    })
}

/// What the end of a connection says of its endpoint: an answer that it is well, a reset before the first word that it is not.
fn judge<C: PartialEq>(shard: &Shard, live: &Live, (port, begun): (Option<u16>, Instant), outcome: &RelayOutcome<C>) {
    let (Some(port), health) = (port, &shard.environment.health) else { return };
    let record = live.record();
    let (Some(workload), Some(service)) = (&record.destination_workload, &record.service) else { return };
    if outcome.received > 0 || outcome.end == RelayEnd::Orderly {
        health.answered(begun, || Subject::Endpoint(workload.uid.clone(), port));
    } else if outcome.end == RelayEnd::ResetBy(Side::Peer) {
        let at = (&workload.uid, port);
        shard.mesh(|mesh| health.endpoint_failed(mesh, &service.key, at, Fault::Reset, begun));
    }
}
