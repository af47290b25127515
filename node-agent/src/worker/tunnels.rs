//! How a worker's pool gets its encrypted connections: TCP from inside the source pod, TLS with the source's identity, the
//! peer's identity checked against the set that the decision accepted.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use weft_hbone::{ConnectionEnd, Dial, DialFailure, OpenError, PoolError, StreamError};
use weft_identity::certificate::peer_not_after;
use weft_identity::tls::ClientConfig;
use weft_model::ejection::{Fault, Subject};
use weft_model::{Mesh, NetworkAddress, Reason, SpiffeId};
use weft_runtime::shared::Reader;

use crate::environment::ProxySettings;
use crate::pods::PodUid;
use crate::worker::credentials::TlsConfigs;
use crate::worker::health::EndpointHealth;
use crate::worker::lifetimes::Lifetimes;
use crate::worker::sockets::{DialSocket, Sockets, family_of};

/// What two tunnels must have in common to share a connection. The pod is part of it because the connection lives in that
/// pod's namespace and carries its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Who we are.
    pub source: SpiffeId,
    /// The pod that it comes from.
    pub pod: PodUid,
    /// Where to.
    pub next_hop: SocketAddr,
    /// Who may answer.
    pub peers: Arc<[SpiffeId]>,
}

/// Why there is no connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelDialError {
    /// The code.
    pub reason: Reason,
    /// In words.
    pub detail: String,
}

impl fmt::Display for TunnelDialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for TunnelDialError {}

/// Dials for the pool of one worker.
#[derive(Clone)]
pub struct TunnelDialer {
    /// The stock of sockets.
    pub sockets: Rc<Sockets>,
    /// TLS by identity.
    pub tls: TlsConfigs,
    /// Until when what is made may be used.
    pub lifetimes: Rc<Lifetimes<TunnelKey>>,
    /// Numbers.
    pub settings: Arc<ProxySettings>,
    /// Where failures of peers are told.
    pub peers: PeerWatch,
}

/// Tells what dials say of peer agents and their nodes.
#[derive(Clone)]
pub struct PeerWatch {
    /// Where it is told.
    pub health: EndpointHealth,
    /// Who is at an address, and on which node.
    pub mesh: Reader<Mesh>,
    /// The network of our own addresses.
    pub network: Arc<str>,
}

impl PeerWatch {
    fn failed(&self, hop: SocketAddr, fault: Fault, silent: bool, begun: std::time::Instant) {
        self.health.hop_failed(hop, self.node(hop).filter(|_| silent), fault, begun);
    }

    fn answered(&self, hop: SocketAddr) {
        let subjects = || [Some(Subject::Hop(hop)), self.node(hop).map(Subject::Node)].into_iter().flatten();
        self.health.connected(subjects);
    }

    fn node(&self, hop: SocketAddr) -> Option<Arc<str>> {
        let at = NetworkAddress::new(self.network.clone(), hop.ip());
        self.mesh
            .read(|mesh| mesh.workload_at(&at).map(|workload| workload.node.clone()))
            .filter(|name| !name.is_empty())
    }
}

impl TunnelDialer {
    /// The connection takes new tunnels until the first of the certificates of both ends is over.
    fn note_lifetime(&self, key: &TunnelKey, stream: &<Self as Dial<TunnelKey>>::Io) {
        let ends = [peer_not_after(stream.get_ref().1), self.tls.not_after(&key.source)];
        if let Some(end) = ends.into_iter().flatten().min() {
            self.lifetimes.made(key, end);
        }
    }

    async fn tcp(&self, socket: DialSocket, to: SocketAddr) -> Result<TcpStream, TunnelDialError> {
        let failed = |reason, detail: String| TunnelDialError { reason, detail };
        match timeout(self.settings.tunnel_connect_timeout, socket.connect(to)).await {
            Ok(Ok(stream)) => {
                limit_silence(&stream);
                Ok(stream)
            }
            Ok(Err(error)) => Err(failed(reason_of_connect(&error), format!("{to}: {error}"))),
            Err(_) => Err(failed(Reason::TunnelTimeout, format!("{to} does not answer"))),
        }
    }

    /// TLS. A peer that is slow with it is left out meanwhile, and used again when it was only slow.
    async fn tls(
        &self,
        stream: TcpStream,
        config: Arc<ClientConfig>,
        (hop, begun): (SocketAddr, std::time::Instant),
    ) -> Result<<Self as Dial<TunnelKey>>::Io, TunnelDialError> {
        let mut handshake = pin!(weft_identity::tls::connect(stream, config));
        let done = match timeout(self.settings.attempt_patience, &mut handshake).await {
            Ok(done) => done,
            Err(_) => {
                self.peers.failed(hop, Fault::Silent, false, begun);
                handshake.await
            }
        };
        done.map_err(|error| TunnelDialError { reason: error.reason(), detail: error.to_string() })
    }
}

/// Notices a peer whose machine is gone while bytes are on their way to it. Either end of a tunnel.
pub fn limit_silence(stream: &TcpStream) {
    // A socket that does not take it is gone; without it, PING notices.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// Bytes of a tunnel that the peer's kernel does not acknowledge for this long end its connection. 10 s: long enough for a
/// route that changes or a machine that is moved, and within it the kernel has repeated them six times.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

fn reason_of_connect(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::TunnelRefused,
        io::ErrorKind::TimedOut => Reason::TunnelTimeout,
        _ => Reason::ConnectFailed,
    }
}

impl Dial<TunnelKey> for TunnelDialer {
    type Io = weft_identity::tls::ClientStream<TcpStream>;
    type Error = TunnelDialError;

    async fn dial(&self, key: &TunnelKey) -> Result<Self::Io, TunnelDialError> {
        let deadline = Instant::now() + self.settings.certificate_wait;
        let config = self.tls.client(&key.source, &key.peers, deadline).await;
        let config = config.map_err(|error| TunnelDialError { reason: error.reason(), detail: error.to_string() })?;
        let socket = self.sockets.take(&key.pod, family_of(key.next_hop.ip()), self.settings.socket_wait).await;
        let missing = "no socket from the capture half".to_owned();
        let socket = socket.map_err(|reason| TunnelDialError { reason, detail: missing })?;
        // From here on it is the peer that keeps us waiting.
        let (hop, begun) = (key.next_hop, std::time::Instant::now());
        let stream = self.tcp(socket, hop).await.inspect_err(|error| {
            let fault = match error.reason {
                Reason::TunnelRefused => Fault::Refused,
                Reason::TunnelTimeout => Fault::Silent,
                _ => Fault::Failed,
            };
            // A kernel that refuses is alive; no route to it is as bad as silence.
            self.peers.failed(hop, fault, fault != Fault::Refused, begun);
        })?;
        let tunnel = self.tls(stream, config, (hop, begun)).await;
        match &tunnel {
            Ok(stream) => {
                self.peers.answered(hop);
                self.note_lifetime(key, stream);
            }
            Err(_) => self.peers.failed(hop, Fault::Failed, false, begun),
        }
        tunnel
    }

    fn ended(&self, key: &TunnelKey, end: &ConnectionEnd) {
        if *end == ConnectionEnd::PingTimeout {
            self.peers.failed(key.next_hop, Fault::Silent, true, std::time::Instant::now());
        }
    }
}

/// The code for what the pool says.
#[must_use]
pub fn reason_of_pool(error: &PoolError<TunnelDialError>) -> Reason {
    match error {
        PoolError::Dial(DialFailure::Dial(error)) => error.reason,
        PoolError::Dial(DialFailure::Handshake(_)) => Reason::TunnelFailed,
        PoolError::Dial(DialFailure::Timeout) => Reason::TunnelTimeout,
        PoolError::Open(OpenError::Refused { reason, .. }) => {
            reason.as_deref().and_then(Reason::from_code).unwrap_or(Reason::PeerRefused)
        }
        PoolError::Open(OpenError::Stream(StreamError::PingTimeout)) | PoolError::Unanswered { .. } => {
            Reason::TunnelTimeout
        }
        PoolError::Open(OpenError::Stream(_) | OpenError::Encode(_)) => Reason::TunnelFailed,
        PoolError::Draining => Reason::Draining,
    }
}

/// Whether another endpoint of the service may do what this one did not. Policy would say the same there, and who looks for
/// a hole in it must not be helped; what is missing on our own side is missing for every endpoint.
#[must_use]
pub fn concerns_endpoint(error: &PoolError<TunnelDialError>) -> bool {
    match error {
        PoolError::Dial(DialFailure::Dial(error)) => {
            !matches!(error.reason, Reason::NoCertificate | Reason::NoDialSockets)
        }
        PoolError::Dial(DialFailure::Handshake(_) | DialFailure::Timeout)
        | PoolError::Open(OpenError::Stream(_))
        | PoolError::Unanswered { .. } => true,
        PoolError::Open(OpenError::Refused { status, .. }) => *status == 503,
        PoolError::Open(OpenError::Encode(_)) | PoolError::Draining => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use weft_hbone::{ConnectionEnd, DialFailure, OpenError, PoolError, ResetCode, StreamError};
    use weft_model::Reason;

    use super::{TunnelDialError, concerns_endpoint, reason_of_pool};

    fn dial(reason: Reason) -> PoolError<TunnelDialError> {
        PoolError::Dial(DialFailure::Dial(Arc::new(TunnelDialError { reason, detail: String::new() })))
    }

    fn refused(status: u16, reason: Option<&str>) -> PoolError<TunnelDialError> {
        PoolError::Open(OpenError::Refused { status, reason: reason.map(str::to_owned) })
    }

    #[rstest]
    #[case::refused_tcp(dial(Reason::TunnelRefused), Reason::TunnelRefused, true)]
    #[case::another_pod_there(dial(Reason::PeerIdentityMismatch), Reason::PeerIdentityMismatch, true)]
    #[case::our_certificate(dial(Reason::NoCertificate), Reason::NoCertificate, false)]
    #[case::our_sockets(dial(Reason::NoDialSockets), Reason::NoDialSockets, false)]
    #[case::silence(PoolError::Dial(DialFailure::Timeout), Reason::TunnelTimeout, true)]
    #[case::no_http2(PoolError::Dial(DialFailure::Handshake(ConnectionEnd::Closed)), Reason::TunnelFailed, true)]
    #[case::lost(PoolError::Open(OpenError::Stream(StreamError::Reset(ResetCode::CANCEL))), Reason::TunnelFailed, true)]
    #[case::no_pong(PoolError::Open(OpenError::Stream(StreamError::PingTimeout)), Reason::TunnelTimeout, true)]
    #[case::no_answer(PoolError::Unanswered { dialled: true }, Reason::TunnelTimeout, true)]
    #[case::application(refused(503, Some("connect-refused")), Reason::ConnectRefused, true)]
    #[case::stock_peer_503(refused(503, None), Reason::PeerRefused, true)]
    #[case::policy(refused(401, Some("policy-denied")), Reason::PolicyDenied, false)]
    #[case::stock_peer_401(refused(401, None), Reason::PeerRefused, false)]
    #[case::wrong_destination(refused(400, Some("wrong-destination")), Reason::WrongDestination, false)]
    #[case::unheard_of(refused(503, Some("of-next-year")), Reason::PeerRefused, true)]
    #[case::draining(PoolError::Draining, Reason::Draining, false)]
    fn what_the_pool_says(
        #[case] error: PoolError<TunnelDialError>,
        #[case] reason: Reason,
        #[case] try_another: bool,
    ) {
        assert_eq!((reason_of_pool(&error), concerns_endpoint(&error)), (reason, try_another), "{error}");
    }
}
