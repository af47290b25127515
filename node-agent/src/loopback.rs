//! What sockets have whose other end is in the same pod: client and outbound listener, inbound handler and application.
//! Used by both halves: the capture half makes listeners, the proxy half dials.

use std::io;

use socket2::SockRef;

/// Congestion control where nothing can be congested. A node with `net.ipv4.tcp_congestion_control = bbr` would pace by timers what
/// goes over `lo`: in bulk on one node that was 7 % of the agent's samples, and a third less throughput
/// (`docs/performance.md`). Every kernel has Reno, and lets everybody choose it (`tcp(7)`, TCP_CONGESTION).
const CONGESTION: &[u8] = b"reno";

/// To be called before `listen` (what is accepted inherits it) or `connect`: pacing that has begun does not end.
///
/// # Errors
/// Those of setsockopt.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_congestion(CONGESTION)
}
