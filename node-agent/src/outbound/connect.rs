//! Goes where a decision says: a socket past the mesh, a tunnel, or the application of another pod of this node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_hbone::{Authority, ConnectHead, Patience, Traceparent, Tunnel};
use weft_model::ejection::Fault;
use weft_model::workload::Workload;
use weft_model::{Reason, Service};

use super::decide::{Decision, Target, TunnelPlan};
use super::ways::{fault_of_pool, fault_of_reason};
use crate::inbound::{Caller, admit_local, check, deliver};
use crate::telemetry::{Direction, HboneTarget, Security};
use crate::worker::connections::Live;
use crate::worker::describe::{baggage_of, forwarded_of};
use crate::worker::failure::Failure;
use crate::worker::served::ServedPod;
use crate::worker::shard::{Pod, Shard};
use crate::worker::sockets::family_of;
use crate::worker::tunnels::{TunnelKey, concerns_endpoint, reason_of_pool};

/// The far end of a captured connection.
pub(super) enum Peer {
    /// A socket: past the mesh, or into another pod of this node.
    Socket(TcpStream),
    /// A tunnel.
    Tunnel(Tunnel),
}

/// A connection that was not made.
pub(super) struct NotConnected {
    /// Why.
    pub(super) failure: Failure,
    /// The endpoint is at fault and has seen no byte: another one may do.
    pub(super) try_another: bool,
    /// What it says of the application there.
    pub(super) fault: Option<Fault>,
}

impl NotConnected {
    fn by_endpoint(failure: Failure) -> Self {
        let fault = fault_of_reason(failure.reason);
        Self { failure, try_another: true, fault }
    }

    fn for_good(failure: impl Into<Failure>) -> Self {
        Self { failure: failure.into(), try_another: false, fault: None }
    }
}

/// Connects.
///
/// # Errors
/// [`NotConnected`], with the reason of a refused decision, too.
pub(super) async fn connect(
    shard: &Shard,
    pod: &Pod,
    live: &Live,
    source: &Arc<Workload>,
    decision: &Decision,
    patience: Patience<impl Fn() -> bool>,
) -> Result<Peer, NotConnected> {
    note(live, decision);
    let unanswered = |to: SocketAddr| {
        move || Err(NotConnected::by_endpoint(Failure::new(Reason::ConnectTimeout, format!("{to} does not answer"))))
    };
    match decision {
        Decision::Refuse(reason) => Err(NotConnected::for_good(*reason)),
        Decision::Passthrough { to } => plain(shard, pod, *to, patience).await.map(Peer::Socket),
        Decision::Plain(target) => plain(shard, pod, target.to, patience).await.map(Peer::Socket),
        Decision::Local(target) => {
            let connected = patience.wait(local(shard, pod, live, target)).await;
            if connected.is_none() {
                live.leave_other_pod();
            }
            connected.unwrap_or_else(unanswered(target.to)).map(Peer::Socket)
        }
        Decision::Tunnel(plan) => tunnel(shard, pod, (live, source), plan, patience).await.map(Peer::Tunnel),
    }
}

/// Enters what the decision says in the record, so that a connection that hangs shows where.
fn note(live: &Live, decision: &Decision) {
    live.note(|record| {
        record.destination_workload = decision.workload().cloned();
        record.service = decision.service().cloned();
        record.hbone_target = None;
        record.destination_identity = None;
        record.security = match decision {
            Decision::Tunnel(_) => Security::MutualTls,
            Decision::Local(_) => Security::SameNode,
            Decision::Passthrough { .. } | Decision::Plain(_) | Decision::Refuse(_) => Security::Plaintext,
        };
        if let Decision::Tunnel(plan) = decision {
            let (authority, via) = (Authority::from(plan.authority), Some(plan.next_hop.0));
            record.hbone_target = Some(HboneTarget { authority, via });
        }
    });
}

/// Plain TCP from inside the pod.
async fn plain(
    shard: &Shard,
    pod: &Pod,
    to: SocketAddr,
    patience: Patience<impl Fn() -> bool>,
) -> Result<TcpStream, NotConnected> {
    let settings = &shard.environment.settings;
    let socket = shard.sockets.take(&pod.info().uid, family_of(to.ip()), settings.socket_wait).await;
    let socket = socket.map_err(NotConnected::for_good)?;
    match patience.wait(timeout(settings.connect_timeout, socket.connect(to))).await {
        Some(Ok(Ok(stream))) => Ok(stream),
        Some(Ok(Err(error))) => {
            let reason = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
                std::io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                _ => Reason::ConnectFailed,
            };
            Err(NotConnected::by_endpoint(Failure::new(reason, format!("{to}: {error}"))))
        }
        Some(Err(_)) | None => Err(NotConnected::by_endpoint(Failure::new(Reason::ConnectTimeout, to))),
    }
}

async fn tunnel(
    shard: &Shard,
    pod: &Pod,
    (live, source): (&Live, &Workload),
    plan: &TunnelPlan,
    patience: Patience<impl Fn() -> bool>,
) -> Result<Tunnel, NotConnected> {
    let key = TunnelKey {
        source: pod.served.identity.clone(),
        pod: pod.info().uid.clone(),
        next_hop: plan.next_hop.0,
        peers: plan.peers.clone(),
    };
    // Certificates may be over between two looks of the worker: nothing new goes by them.
    if shard.lifetimes.is_over(&key, SystemTime::now()) {
        shard.pool.retire_where(|other| *other == key);
    }
    let host = plan.service.as_deref().map(|service: &Service| &*service.key.hostname);
    let mut head = ConnectHead::new(Authority::from(plan.authority));
    head.baggage = Some(baggage_of(source));
    head.forwarded = Some(forwarded_of(live.record().source, host));
    head.traceparent = Some(Traceparent::random());
    let mut tunnel = shard.pool.open_within(&key, &head, patience).await.map_err(|error| {
        let (try_another, fault) = (concerns_endpoint(&error), fault_of_pool(&error));
        NotConnected { failure: Failure::new(reason_of_pool(&error), error), try_another, fault }
    })?;
    // Nobody asks for it, and it is as large as an idle stream.
    drop(tunnel.take_peer_baggage());
    // The handshake accepted one of these; with one there is no doubt which.
    if let [only] = &*plan.peers {
        live.note(|record| record.destination_identity = Some(only.clone()));
    }
    Ok(tunnel)
}

/// The short way: the destination's policy with the identity that the kernel proves (the connection came from the source
/// pod's namespace), then its application, dialled from inside its own namespace.
async fn local(shard: &Shard, pod: &Pod, live: &Live, target: &Target) -> Result<TcpStream, NotConnected> {
    let served = shard.environment.served.read(|served| served.serving(&target.workload, target.to.ip()).cloned());
    let destination: ServedPod = served.ok_or_else(|| NotConnected::by_endpoint(Reason::WorkloadGone.into()))?;
    let client = client_towards(&pod.info().addresses, live.record().source, target.to.ip());
    let caller = Caller { client, arrived_at: target.to.ip(), identity: Some(pod.served.identity.clone()) };
    live.note(|record| record.destination_identity = Some(destination.identity.clone()));
    let mut mirror = live.record().clone();
    mirror.direction = Direction::Inbound;
    mirror.destination = target.to;
    live.mirrored_by(mirror, &destination.info.uid, &destination.load);
    shard.environment.settings.limits.judge_counted(&destination.load).map_err(|reason| {
        live.leave_other_pod();
        NotConnected::by_endpoint(reason.into())
    })?;
    let admit = |mesh: &weft_model::Mesh, workload: &Workload| admit_local(mesh, workload, &caller, target.to);
    let admission = check(shard, live, &target.workload, admit).await.map_err(NotConnected::for_good)?;
    deliver(shard, &destination.info.uid, &admission).await.map_err(|failure| {
        live.leave_other_pod();
        NotConnected::by_endpoint(failure)
    })
}

/// The client's address as the destination can see it: the pod's own of the destination's family. The socket's own word
/// counts only when it is one of the pod's: no network checks the way back here, so an application that may bind any address
/// (CAP_NET_ADMIN, or `::1`) could choose whom a policy about addresses takes it for.
fn client_towards(own: &[IpAddr], client: SocketAddr, destination: IpAddr) -> SocketAddr {
    if own.contains(&client.ip()) && client.is_ipv6() == destination.is_ipv6() {
        return client;
    }
    let same_family = own.iter().find(|address| address.is_ipv6() == destination.is_ipv6());
    same_family.map_or(client, |address| SocketAddr::new(*address, client.port()))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rstest::rstest;

    use super::client_towards;

    #[rstest]
    #[case::its_own("10.0.0.1:40000", "10.0.0.9", "10.0.0.1:40000")]
    #[case::its_own_of_the_other_family("[fd00::1]:40000", "10.0.0.9", "10.0.0.1:40000")]
    #[case::its_second("[fd00::1]:40000", "fd00::9", "[fd00::1]:40000")]
    #[case::a_neighbours("10.0.0.2:40000", "10.0.0.9", "10.0.0.1:40000")]
    #[case::loopback("127.0.0.1:40000", "10.0.0.9", "10.0.0.1:40000")]
    #[case::loopback_6("[::1]:40000", "fd00::9", "[fd00::1]:40000")]
    fn the_destination_sees_an_address_of_the_pod(#[case] said: &str, #[case] destination: &str, #[case] seen: &str) {
        let own: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let client = client_towards(&own, said.parse().unwrap(), destination.parse().unwrap());
        assert_eq!(client, seen.parse().unwrap());
    }
}
