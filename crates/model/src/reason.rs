//! Why something was refused: one closed list, the same word in access log, metric label, HBONE header and `weft why`.
//!
//! A code never changes its meaning and is never used again for another one. Errors of every crate map to one of these.

use serde::{Deserialize, Serialize};

/// Everything that a user may want to know of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The stable code.
    pub code: &'static str,
    /// What happened, in one sentence.
    pub cause: &'static str,
    /// The command or action that comes next.
    pub next: &'static str,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $code:literal $status:literal $flag:literal $cause:literal $next:literal)+) => {
        /// Why a connection, a request or a peer was refused or ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code: lower case words with hyphens.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The HTTP status that an HBONE server answers (`docs/hbone.md`); 503 where the
            /// reference names none.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// Istio's `response_flags` label, so that its dashboards work.
            #[must_use]
            pub const fn response_flag(self) -> &'static str {
                match self { $(Self::$name => $flag,)+ }
            }

            /// Cause and next step, for `weft why`.
            #[must_use]
            pub const fn explain(self) -> Explanation {
                match self { $(Self::$name => Explanation { code: $code, cause: $cause, next: $next },)+ }
            }
        }
    };
}

reasons! {
    // Policy and identity.
    /// A Deny policy matched.
    PolicyDenied "policy-denied" 401 "DENY"
        "A Deny policy matches this connection."
        "`weft connections --denied` names the policy; `weft policies` shows its rules."
    /// Allow policies apply and none matched.
    PolicyNotAllowed "policy-not-allowed" 401 "DENY"
        "At least one Allow policy selects the destination, and none of them allows this client."
        "`weft policies` shows what selects the destination; add a rule for the client's service account."
    /// A policy that the workload names is not known here.
    PolicyUnknown "policy-unknown" 401 "DENY"
        "The destination names a policy that this node has not received, so nothing is permitted."
        "`weft config` shows wanted and held resources; look for a rejected policy in the control plane's log."
    /// Plaintext to a strict workload.
    MtlsRequired "mtls-required" 401 "DENY"
        "The destination is in strict mode and the client came in plaintext."
        "Enrol the client's namespace (`kubectl label namespace NS weft.dev/mesh=enabled`), or set weft.dev/mtls=permissive."
    /// A live connection that the policy no longer permits.
    PolicyChanged "policy-changed" 401 "DENY"
        "A policy or label changed, and the connection is no longer permitted."
        "`weft policies` shows the policies in force."
    /// The peer's certificate is of another trust domain.
    TrustDomainMismatch "trust-domain-mismatch" 401 "TLS_FAILURE"
        "The peer's certificate belongs to another trust domain."
        "Compare `weft certs` on both nodes; both must be programmed by the same mesh."
    /// The peer has no acceptable certificate.
    TlsFailed "tls-failed" 503 "TLS_FAILURE"
        "The TLS handshake failed: no certificate, an expired or unknown one, or not TLS at all."
        "`weft certs` on both nodes shows validity and roots; check the clocks."
    /// The server's identity is not one of the expected.
    PeerIdentityMismatch "peer-identity-mismatch" 503 "IDENTITY_ERROR"
        "The workload at the other end has a certificate for another identity than the one expected."
        "The address may have moved to another pod: compare `weft pods` with the destination's service account."
    /// No certificate for our own workload.
    NoCertificate "no-certificate" 503 "IDENTITY_ERROR"
        "This node has no valid certificate for the workload."
        "`weft certs` shows the last error of the certificate authority."

    // What the tunnel's request asks.
    /// Not a CONNECT request.
    NotConnect "not-connect" 400 "-"
        "The tunnel request is not a CONNECT."
        "Only HBONE clients may speak to port 15008."
    /// The authority cannot be parsed.
    BadAuthority "bad-authority" 400 "-"
        "The authority of the tunnel request is not IP:PORT or HOST:PORT."
        "The client's proxy is at fault: see its version in `weft connections`."
    /// The tunnel's target is not this workload.
    WrongDestination "wrong-destination" 400 "-"
        "The tunnel asks for an address that is not this workload's."
        "The client's view is old or forged; `weft config` on the client's node shows what it holds."
    /// The port is one of the mesh's own.
    ReservedPort "reserved-port" 503 "-"
        "Ports 15001, 15006 and 15008 belong to the mesh."
        "Use another port for the application."
    /// The service has no such port here.
    PortUnresolved "port-unresolved" 503 "-"
        "The service has no such port, or the endpoint does not serve it."
        "`weft services` lists the ports and where they lead."
    /// The pod is not known to this node's proxy.
    UnknownWorkload "unknown-workload" 503 "-"
        "The control plane has not told this node about the pod within 5 seconds."
        "`weft config` shows whether the node is in sync; `weft pods` shows what it knows."

    // Finding and reaching the next hop.
    /// A service without usable endpoint.
    NoHealthyEndpoint "no-healthy-endpoint" 503 "CONNECT"
        "The service has no endpoint that is ready and has this port."
        "`weft services` shows the endpoints and their health."
    /// A waypoint is required and cannot be reached.
    WaypointUnavailable "waypoint-unavailable" 503 "CONNECT"
        "The destination must be reached through its waypoint, and no waypoint is ready."
        "`weft services` shows the waypoint's endpoints."
    /// The endpoint is in a network without gateway.
    NetworkUnreachable "network-unreachable" 503 "CONNECT"
        "The endpoint is in another network, and this version cannot reach it there."
        "Only endpoints of the client's own network can be used."
    /// The application or peer refused the connection.
    ConnectRefused "connect-refused" 503 "CONNECT"
        "Nobody listens on the destination's port."
        "Check that the application listens on the pod's address, not on 127.0.0.1 only."
    /// The connection attempt got no answer.
    ConnectTimeout "connect-timeout" 503 "CONNECT"
        "The destination did not answer within the connect time-out."
        "Check the pod and the network between the nodes."
    /// The connection attempt failed otherwise.
    ConnectFailed "connect-failed" 503 "CONNECT"
        "The destination cannot be reached."
        "The log line has the system's error; check routes and the pod."
    /// No answer from port 15008.
    TunnelTimeout "tunnel-timeout" 503 "NETWORK_POLICY"
        "The peer's port 15008 did not answer: often a NetworkPolicy or firewall that blocks it."
        "Allow TCP 15008 between the pods in NetworkPolicies and firewalls."
    /// Port 15008 refused.
    TunnelRefused "tunnel-refused" 503 "CONNECT"
        "The peer's port 15008 refused the connection: no mesh agent serves that pod now."
        "`weft pods` on the peer's node shows whether the pod is captured."
    /// HTTP/2 failed inside the tunnel.
    TunnelFailed "tunnel-failed" 503 "H2_HANDSHAKE_FAILURE"
        "The HTTP/2 tunnel broke or its handshake failed."
        "The log line has the error; look at the peer's agent."
    /// The peer answered with another status than 200 and no reason that we know.
    PeerRefused "peer-refused" 503 "CONNECT"
        "The peer's proxy refused the tunnel without a reason that Weft knows."
        "See the peer's own log."

    // Limits and life cycle.
    /// No socket to dial the application with.
    NoDialSockets "no-dial-sockets" 503 "CONNECT"
        "The capture half did not provide a socket in time."
        "`weft pods` shows whether the capture half is connected; see its log."
    /// Ports of the dial range are exhausted.
    PortsExhausted "ports-exhausted" 503 "CONNECT"
        "No free source port is left for this client address and application port."
        "Too many connections of one client to one port: spread them over more clients."
    /// One pod has too many connections.
    PodConnectionLimit "pod-connection-limit" 503 "-"
        "The pod already has as many live connections in this direction as one pod may have."
        "`weft connections` shows whose they are; --max-connections-per-pod of the agent raises the limit."
    /// One pod has too many connections in their set-up.
    SetupLimit "setup-limit" 503 "-"
        "Too many connections of the pod are being set up, and none got ready within a second."
        "`weft connections` shows where they hang: often an address that does not answer."
    /// One address has too many connections in their set-up.
    PeerHandshakeLimit "peer-handshake-limit" 503 "-"
        "The client's address has too many connections to the pod that have not finished their handshake or set-up."
        "Look at the client: it opens connections faster than it uses them, or is a scanner."
    /// No descriptors.
    DescriptorLimit "descriptor-limit" 503 "-"
        "The agent runs out of file descriptors; pods with many connections are shed first."
        "Raise the limit of open files of the proxy half (process_max_fds in `/metrics`), or spread the pods over more nodes."
    /// No memory.
    MemoryLimit "memory-limit" 503 "-"
        "The agent comes near to its memory limit; pods with many connections are shed first."
        "Raise --memory-limit and the container's limit (weft_connection_bytes in `/metrics`), or spread the pods over more nodes."
    /// A limit of the control plane was reached.
    Overloaded "overloaded" 503 "-"
        "A limit was reached and the call was shed: one node may keep only a few streams open at the control plane."
        "weft_xds_streams_refused_total in `/metrics` of the control plane counts these; look for two agents with one node's token."
    /// The agent shuts down.
    Draining "draining" 503 "-"
        "The agent is shutting down and the connection outlived the drain deadline."
        "None: a successor serves new connections."
    /// The pod leaves the mesh.
    WorkloadGone "workload-gone" 503 "-"
        "The pod was removed from this node."
        "None: the pod is gone."
    /// The peer or application reset the connection.
    Reset "reset" 503 "-"
        "One end reset the connection; the reset was passed on."
        "Look at the application that reset it: the log line says which side."

    // Control plane.
    /// No or a wrong token.
    Unauthenticated "unauthenticated" 401 "-"
        "The caller has no token, or one that the control plane does not know."
        "Compare the agent's --token-file with the server's --node-tokens."
    /// A stream for another node.
    WrongNode "wrong-node" 401 "-"
        "The caller's token belongs to another node than the one it names."
        "Give each node its own token; --node must be the node's name."
    /// An identity that does not run there.
    IdentityNotOnNode "identity-not-on-node" 401 "-"
        "No pod on the caller's node runs as the identity that the certificate request names."
        "`weft pods` on the server shows which pods run where."
    /// A certificate request that cannot be signed.
    BadCertificateRequest "bad-certificate-request" 400 "-"
        "The certificate request must be a signed ECDSA P-256 CSR with one SPIFFE URI."
        "The agent is at fault: see its version."
}

impl Reason {
    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Self::from_code(&code).ok_or_else(|| serde::de::Error::custom(format!("unknown reason code '{code}'")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Reason;

    #[test]
    fn codes_are_unique_and_found_again() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(reason.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert!((400..600).contains(&reason.status()));
        }
    }
}
