//! Probes of the kubelet: plaintext of this node that policies refuse and that enters all the same (decision 24).
//!
//! Asked only when policies have refused, so whatever they permit costs nothing; and not for callers that the mesh knows as pods, so
//! that a pod's calls, however many, take no time of the capture half.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_model::authz::{Connection, Permit};

use super::admit::Admission;
use crate::kubelet::Answer;
use crate::pods::PodUid;
use crate::telemetry::Probe;
use crate::worker::address::canonical;
use crate::worker::connections::Live;
use crate::worker::failure::Failure;
use crate::worker::shard::Shard;

/// The other end is closed by the node's kernel, so its FIN or RST is here, or in the queue of this processor.
const LAST_WORD: Duration = Duration::from_millis(100);

/// What became of a connection that policies refused.
pub(super) enum Outcome {
    /// It is a probe, and goes to the application.
    Enters(Box<Admission>),
    /// It came from this node to a port of a probe, said nothing and is closed: as a TCP probe, whose answer was the kernel's handshake.
    Over,
    /// It stays refused.
    Refused(Failure),
}

/// Asks whether it is a probe.
pub(super) async fn probe(
    shard: &Shard,
    (live, stream): (&Live, &TcpStream),
    pod: &PodUid,
    (client, original): (SocketAddr, SocketAddr),
    refused: Failure,
) -> Outcome {
    let is_known_pod = live.record().source_workload.is_some();
    let Some(permit) = Permit::of_kubelet_probe(refused.reason).filter(|_| !is_known_pod) else {
        return Outcome::Refused(refused);
    };
    let (client, original) = (canonical(client), canonical(original));
    match shard.environment.settings.kubelet.ask(pod, client, original).await {
        Answer::Kubelet => {
            live.note_verdict(None, None);
            live.note(|record| record.probe = Some(Probe::Kubelet));
            Outcome::Enters(Box::new(admission(permit, client, original)))
        }
        Answer::Gone if is_over(stream).await => {
            live.note_verdict(None, None);
            live.note(|record| record.probe = Some(Probe::Closed));
            Outcome::Over
        }
        Answer::Gone => Outcome::Refused(refused),
        Answer::Other { detail } => Outcome::Refused(Failure { detail: detail.or(refused.detail), ..refused }),
    }
}

fn admission(permit: Permit, client: SocketAddr, application: SocketAddr) -> Admission {
    let connection = Connection { identity: None, source: client.ip(), destination: application };
    Admission { application, connection, permit, shadow: None, service: None, announce: None }
}

/// Whether it ended without a byte.
async fn is_over(stream: &TcpStream) -> bool {
    match timeout(LAST_WORD, stream.peek(&mut [0])).await {
        Ok(Ok(length)) => length == 0,
        // Reset: the kubelet closes so, to leave no TIME_WAIT behind.
        Ok(Err(_)) => true,
        Err(_elapsed) => false,
    }
}
