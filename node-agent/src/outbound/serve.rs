//! A captured pod's own calls (port 15001): decide, connect, join. Nothing is read from the application before the far end
//! stands, so protocols in which the server speaks first wait for nothing.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use weft_hbone::relay::{relay_sockets, relay_tunnel};
use weft_model::address::OriginalDst;
use weft_model::workload::{Uid, Workload};

use super::connect::{NotConnected, Peer, connect};
use super::decide::{Decision, Question, Surroundings, decide};
use crate::telemetry::{ConnectionRecord, Direction};
use crate::worker::address::canonical;
use crate::worker::connections::{Live, Outstanding};
use crate::worker::failure::Failure;
use crate::worker::set_up::SetUp;
use crate::worker::shard::{Pod, Shard};

/// Endpoints that are tried for one connection. With one of ten dead, three miss one time in a thousand; more would only
/// make a client wait that has better things to do.
const ATTEMPTS: usize = 3;

/// Serves one captured connection to its end. A refusal is a reset: the socket is not closed in order unless the relay was.
pub async fn serve_outbound(shard: Rc<Shard>, pod: Rc<Pod>, (stream, client): (TcpStream, SocketAddr), set_up: SetUp) {
    let Ok(original) = (shard.environment.original_destination)(&stream) else {
        return; // it is gone already
    };
    let (client, original) = (canonical(client), canonical(original));
    let mut record = ConnectionRecord::new(Direction::Outbound, client, original);
    record.source_identity = Some(pod.served.identity.clone());
    let (live, mut cut) = shard.connections.register(record, &pod.info().uid, &pod.served.load);
    live.sets_up(set_up);
    let connected = tokio::select! {
        // Boxed: setting up takes more room than relaying, and only for a moment.
        connected = Box::pin(reach(&shard, &pod, &live, OriginalDst(original))) => connected,
        reason = cut.wait() => Err(reason.into()),
    };
    let (peer, _counted) = match connected {
        Ok(connected) => connected,
        Err(Failure { reason, detail }) => return live.refuse(reason, detail),
    };
    live.opened();
    let outcome = match peer {
        Peer::Socket(peer) => relay_sockets(stream, peer, &shard.buffers, live.traffic(), cut.wait()).await,
        Peer::Tunnel(tunnel) => relay_tunnel(stream, tunnel, &shard.buffers, live.traffic(), cut.wait()).await,
    };
    live.finish(&outcome);
}

/// Decides and connects, to the next endpoint after each that failed.
async fn reach(
    shard: &Shard,
    pod: &Pod,
    live: &Live,
    original: OriginalDst,
) -> Result<(Peer, Option<Outstanding>), Failure> {
    let source = shard.workload_of(pod).await?;
    live.note(|record| record.source_workload = Some(source.clone()));
    let mut exclude: Vec<Uid> = Vec::new();
    let mut first_failure: Option<Failure> = None;
    loop {
        let decision = ask(shard, &source, original, &exclude);
        // Nothing is left to try: what the endpoints said tells more than that there are no others.
        if let (Decision::Refuse(_), Some(failure)) = (&decision, &first_failure) {
            return Err(failure.clone());
        }
        let counted = decision.workload().map(|workload| shard.connections.count_endpoint(&workload.uid));
        let failed = match connect(shard, pod, live, &source, &decision).await {
            Ok(peer) => return Ok((peer, counted)),
            Err(failed) => failed,
        };
        let NotConnected { failure, try_another } = failed;
        let Some(endpoint) = decision.endpoint().filter(|_| try_another) else { return Err(failure) };
        exclude.push(endpoint.clone());
        if exclude.len() >= ATTEMPTS {
            return Err(failure);
        }
        first_failure.get_or_insert(failure);
    }
}

fn ask(shard: &Shard, source: &Arc<Workload>, original: OriginalDst, exclude: &[Uid]) -> Decision {
    shard.mesh(|mesh| {
        let source = mesh.workload(&source.uid).unwrap_or(source);
        decide(&Question { mesh, source, original, exclude }, &Around(shard), &mut rand::rng())
    })
}

struct Around<'a>(&'a Shard);

impl Surroundings for Around<'_> {
    fn outstanding(&self, uid: &Uid) -> u32 {
        self.0.connections.outstanding(uid)
    }

    fn serves(&self, workload: &Workload, address: IpAddr) -> bool {
        self.0.environment.served.read(|served| served.serving(workload, address).is_some())
    }
}
