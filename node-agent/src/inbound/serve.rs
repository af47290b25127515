//! Tunnels that come to a pod (port 15008): TLS with the pod's certificate, HTTP/2, and one task for each stream.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use weft_hbone::connect::DecodeError;
use weft_hbone::relay::relay_tunnel;
use weft_hbone::{ConnectHead, ConnectionEnd, Incoming, Malformed, Refusal, ServerConnection, server};
use weft_identity::certificate::peer_not_after;
use weft_identity::tls::{ServerStream, accept};
use weft_model::{NetworkAddress, Reason, SpiffeId, Workload};

use super::admit::{Caller, admit_tunnel};
use super::check::check;
use super::deliver::deliver;
use crate::telemetry::{ConnectionRecord, Direction, HboneTarget, Security};
use crate::worker::address::canonical;
use crate::worker::connections::Live;
use crate::worker::describe::baggage_of;
use crate::worker::failure::Failure;
use crate::worker::lifetimes::until;
use crate::worker::own::own_workload;
use crate::worker::pod_load::Way;
use crate::worker::set_up::SetUp;
use crate::worker::shard::{Pod, Shard};
use crate::worker::steps::{Relaying, in_turns, in_two_steps};
use crate::worker::tunnels::limit_silence;

/// How long the peer gets to read the last GOAWAY of a connection that must end now.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(500);

/// Serves one connection with all its tunnels. Each tunnel's task goes to `tasks`.
pub async fn serve_tunnels(
    shard: Rc<Shard>,
    pod: Rc<Pod>,
    (stream, client): (TcpStream, SocketAddr),
    set_up: SetUp,
    tasks: TaskTracker,
) {
    let _counted = pod.served.load.enter(Way::Tunnel);
    let Ok(arrived_at) = stream.local_addr() else {
        return; // it is gone already
    };
    limit_silence(&stream);
    let (client, arrived_at) = (canonical(client), canonical(arrived_at));
    let greeted = tokio::select! {
        greeted = Box::pin(greet(&shard, &pod, stream)) => greeted,
        () = pod.gone.cancelled() => return,
    };
    let Greeted { connection, identity, ends } = match greeted {
        Ok(greeted) => greeted,
        Err((identity, failure)) => return refuse_connection(&shard, &pod, (client, arrived_at), identity, failure),
    };
    drop(set_up);
    let caller = Caller { client, arrived_at: arrived_at.ip(), identity: Some(identity) };
    let take = |incoming: Result<Incoming, Malformed>| match incoming {
        Ok(incoming) => {
            tasks.spawn_local(in_two_steps(begin(shard.clone(), pod.clone(), incoming, caller.clone())));
        }
        Err(malformed) => {
            let failure = Failure::new(reason_of(&malformed), malformed);
            refuse_connection(&shard, &pod, (client, arrived_at), caller.identity.clone(), failure);
        }
    };
    if let Some(end) = drive(&pod, connection, ends, take).await.filter(is_misconduct) {
        let failure = Failure::new(Reason::TunnelFailed, end);
        refuse_connection(&shard, &pod, (client, arrived_at), caller.identity, failure);
    }
}

/// One of the ends said that the other broke the rules: that is worth a line, or an attack would leave no trace.
fn is_misconduct(end: &ConnectionEnd) -> bool {
    use ConnectionEnd::{Aborted, Closed, Io, PingTimeout};
    !matches!(end, Closed | Aborted | PingTimeout | Io(_))
}

fn reason_of(malformed: &Malformed) -> Reason {
    match malformed.0 {
        DecodeError::NotConnect => Reason::NotConnect,
        DecodeError::Authority(_) => Reason::BadAuthority,
    }
}

/// What never became a tunnel: between which addresses, and whose certificate it was, if it came so far.
fn refuse_connection(
    shard: &Shard,
    pod: &Pod,
    (client, arrived_at): (SocketAddr, SocketAddr),
    identity: Option<SpiffeId>,
    failure: Failure,
) {
    let mut record = ConnectionRecord::new(Direction::Inbound, client, arrived_at);
    record.source_identity = identity;
    record.destination_workload = shard.mesh(|mesh| own_workload(mesh, &shard.environment.node, pod.info()).cloned());
    record.destination_identity = Some(pod.served.identity.clone());
    record.reason = Some(failure.reason);
    record.detail = failure.detail.map(String::into_boxed_str);
    shard.telemetry.refused(record);
}

struct Greeted {
    connection: ServerConnection<ServerStream<TcpStream>>,
    /// Who it is.
    identity: SpiffeId,
    /// The last moment of the certificates of both sides.
    ends: Option<SystemTime>,
}

/// TLS and HTTP/2, both within one deadline: a silent peer is not waited for. A failure comes with the peer's identity where
/// it has proved one: a flood may begin with the first bytes after the handshake, and is not to stay nameless.
async fn greet(shard: &Shard, pod: &Pod, stream: TcpStream) -> Result<Greeted, (Option<SpiffeId>, Failure)> {
    let settings = &shard.environment.settings;
    let deadline = Instant::now() + settings.certificate_wait;
    let nameless = |failure| (None, failure);
    let config = shard.tls.server(&pod.served.identity, deadline).await;
    let config = config.map_err(|error| nameless(Failure::new(error.reason(), error)))?;
    let deadline = Instant::now() + settings.handshake_timeout;
    let silent = |_| Failure::new(Reason::TlsFailed, "the client did not finish the handshake in time");
    let accepted = timeout_at(deadline, accept(stream, config)).await.map_err(silent).map_err(nameless)?;
    let (stream, identity) = accepted.map_err(|error| nameless(Failure::new(error.reason(), error)))?;
    let ends = [peer_not_after(stream.get_ref().1), shard.tls.not_after(&pod.served.identity)];
    let opened = timeout_at(deadline, server::handshake(stream, &settings.tunnel)).await.map_err(silent);
    match opened.and_then(|opened| opened.map_err(|end| Failure::new(Reason::TunnelFailed, end))) {
        Ok(connection) => Ok(Greeted { connection, identity, ends: ends.into_iter().flatten().min() }),
        Err(failure) => Err((Some(identity), failure)),
    }
}

/// Moves the connection to its end, and tells how it ended: in order when the pod takes nothing new or a certificate has
/// ended, at once when the pod is gone.
async fn drive<Io>(
    pod: &Pod,
    mut connection: ServerConnection<Io>,
    ends: Option<SystemTime>,
    take: impl Fn(Result<Incoming, Malformed>),
) -> Option<ConnectionEnd>
where
    Io: AsyncBufRead + AsyncWrite + Unpin,
{
    let mut draining = false;
    let mut ended = pin!(until(ends.unwrap_or(SystemTime::UNIX_EPOCH)));
    loop {
        tokio::select! {
            incoming = connection.accept() => match incoming {
                Some(incoming) => take(incoming),
                None => return connection.end().cloned(),
            },
            () = pod.retired.cancelled(), if !draining => {
                connection.drain();
                draining = true;
            }
            () = &mut ended, if !draining && ends.is_some() => {
                connection.drain();
                draining = true;
            }
            () = pod.gone.cancelled() => break,
        }
    }
    connection.abort();
    // Whether the GOAWAY got out or not, the connection ends here.
    let _ = timeout(FAREWELL, async { while connection.accept().await.is_some() {} }).await;
    None
}

/// Brings one tunnel to its application.
async fn begin(shard: Rc<Shard>, pod: Rc<Pod>, mut incoming: Incoming, caller: Caller) -> Option<Relaying> {
    let asked = SocketAddr::new(caller.arrived_at, incoming.head.authority.port());
    let mut record = ConnectionRecord::new(Direction::Inbound, caller.client, asked);
    record.security = Security::MutualTls;
    record.source_identity.clone_from(&caller.identity);
    record.hbone_target = Some(HboneTarget { authority: incoming.head.authority.clone(), via: None });
    let (live, mut cut) = shard.connections.register(record, &pod.info().uid, &pod.served.load);
    if let Err(reason) = shard.environment.settings.limits.judge_counted(&pod.served.load) {
        incoming.refuse(refusal_of(reason), reason.code());
        live.refuse(reason, None);
        return None;
    }
    let head = incoming.head.clone();
    let connected = tokio::select! {
        connected = connect(&shard, &pod, &live, &head, &caller) => connected,
        reason = cut.wait() => Err(reason.into()),
        () = poll_fn(|cx| incoming.poll_withdrawn(cx)) => Err(Failure::new(Reason::Reset, "withdrawn by the client")),
    };
    let (mut application, workload) = match connected {
        Ok(connected) => connected,
        Err(Failure { reason, detail }) => {
            incoming.refuse(refusal_of(reason), reason.code());
            live.refuse(reason, detail);
            return None;
        }
    };
    let mut tunnel = match incoming.accept(Some(&baggage_of(&workload))) {
        Ok(tunnel) => tunnel,
        Err(error) => {
            live.refuse(Reason::Reset, Some(error.to_string()));
            return None;
        }
    };
    live.opened();
    let turns = shard.turns_of(caller.client);
    Some(in_turns(turns, async move {
        let outcome = relay_tunnel(&mut application, &mut tunnel, &shard.buffers, live.traffic(), cut.comes()).await;
        drop((application, tunnel));
        live.finish(&outcome);
    }))
}

async fn connect(
    shard: &Shard,
    pod: &Pod,
    live: &Live,
    head: &ConnectHead,
    caller: &Caller,
) -> Result<(TcpStream, Arc<Workload>), Failure> {
    let workload = shard.workload_of(pod).await?;
    // What a gateway forwards from another network has an address that means somebody else here.
    let foreign = head.forwarded_network.as_deref().is_some_and(|network| network != &*workload.network);
    let source = NetworkAddress::new(workload.network.clone(), caller.client.ip());
    let source = shard.mesh(|mesh| mesh.workload_at(&source).cloned()).filter(|_| !foreign);
    live.note(|record| {
        record.source_workload = source;
        record.destination_identity = Some(pod.served.identity.clone());
        record.destination_workload = Some(workload.clone());
    });
    let authority = &head.authority;
    let admission =
        check(shard, live, &workload, |mesh, workload| admit_tunnel(mesh, workload, authority, caller)).await?;
    live.note(|record| {
        record.destination = admission.application;
        record.service.clone_from(&admission.service);
    });
    let application = deliver(shard, &pod.info().uid, &admission).await?;
    Ok((application, workload))
}

/// The status that every peer understands.
fn refusal_of(reason: Reason) -> Refusal {
    match reason.status() {
        400 => Refusal::Malformed,
        401 => Refusal::Denied,
        _ => Refusal::Unavailable,
    }
}
