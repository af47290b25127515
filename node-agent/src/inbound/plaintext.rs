//! Plaintext that was captured on its way into a pod (port 15006): the same policy with no identity, then two sockets joined. What
//! policy refuses may be a probe of the kubelet.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use weft_hbone::relay::relay_sockets;
use weft_hbone::{RelayEnd, RelayOutcome};
use weft_model::NetworkAddress;

use super::admit::admit_plaintext;
use super::check::check;
use super::deliver::deliver;
use super::probe::{Outcome, probe};
use crate::telemetry::{ConnectionRecord, Direction};
use crate::worker::address::canonical;
use crate::worker::connections::Live;
use crate::worker::failure::Failure;
use crate::worker::set_up::SetUp;
use crate::worker::shard::{Pod, Shard};
use crate::worker::steps::{Relaying, in_turns, in_two_steps};

/// Serves one captured connection to its end. A refusal is a reset: the socket is not closed in order unless the relay was.
pub fn serve_plaintext(
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
    let record = ConnectionRecord::new(Direction::Inbound, client, original);
    let (live, mut cut) = shard.connections.register(record, &pod.info().uid, &pod.served.load);
    live.sets_up(set_up);
    live.client_comes_first();
    let connected = tokio::select! {
        connected = connect(&shard, &pod, (&live, &stream), client, original) => connected,
        reason = cut.wait() => Err(reason.into()),
    };
    let mut application = match connected {
        Ok(Some(application)) => application,
        Ok(None) => {
            live.opened();
            live.finish(&RelayOutcome { sent: 0, received: 0, end: RelayEnd::Orderly });
            return None;
        }
        Err(Failure { reason, detail }) => {
            live.refuse(reason, detail);
            return None;
        }
    };
    live.opened();
    let turns = shard.turns_of(client);
    Some(in_turns(turns, async move {
        let outcome = relay_sockets(&mut stream, &mut application, &shard.buffers, live.traffic(), cut.comes()).await;
        drop((stream, application));
        live.finish(&outcome);
    }))
}

/// The application; none where the client is gone and wanted no more than that.
async fn connect(
    shard: &Shard,
    pod: &Pod,
    (live, stream): (&Live, &TcpStream),
    client: SocketAddr,
    original: SocketAddr,
) -> Result<Option<TcpStream>, Failure> {
    let workload = shard.workload_of(pod).await?;
    let source = NetworkAddress::new(workload.network.clone(), client.ip());
    let source = shard.mesh(|mesh| mesh.workload_at(&source).cloned());
    live.note(|record| {
        record.source_workload = source;
        record.destination_workload = Some(workload.clone());
    });
    let uid = &pod.info().uid;
    let admitted =
        check(shard, live, &workload, |mesh, workload| admit_plaintext(mesh, workload, client, original)).await;
    let admission = match admitted {
        Ok(admission) => admission,
        Err(refused) => match probe(shard, (live, stream), uid, (client, original), refused).await {
            // Not entered for the re-check: it stands on no policy, and ends with the pod.
            Outcome::Enters(admission) => *admission,
            Outcome::Over => return Ok(None),
            Outcome::Refused(refused) => return Err(refused),
        },
    };
    deliver(shard, uid, &admission).await.map(Some)
}
