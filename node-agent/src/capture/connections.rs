//! Connections that a pod has already when it joins: found, waited for, or reset.
//!
//! Works in the network namespace of the calling thread.

use std::{collections::BTreeSet, io, net::SocketAddr, os::fd::OwnedFd};

use nix::{errno::Errno, sys::socket::SockProtocol};
use thiserror::Error;

use super::{
    diag::{self, Answer, TcpSocket},
    mark::{self, HBONE_PORT},
    netlink::{self, transmit},
    socket::Ipv6,
};
use crate::handover::Family;

/// Why connections cannot be listed or reset.
#[derive(Debug, Error)]
pub enum ConnectionsError {
    /// No list.
    #[error("cannot list the pod's connections: {0}")]
    List(#[from] io::Error),
    /// The kernel resets none.
    #[error(
        "the kernel cannot reset connections ({0}): it needs CONFIG_INET_DIAG_DESTROY and CAP_NET_ADMIN; restart the pod instead, or enrol it in permissive mode"
    )]
    Destroy(io::Error),
}

/// The application's connections to other machines and pods that the agent does not relay: neither the agent's own
/// sockets, nor what stays on `lo`, nor the application's side of a captured connection.
///
/// # Errors
/// [`ConnectionsError::List`].
pub fn of_application(ipv6: Ipv6) -> Result<Vec<TcpSocket>, ConnectionsError> {
    Ok(not_relayed(list(ipv6, diag::list_request)?))
}

/// Whether anything is relayed in the pod, by the kernel's word. Proxies count what they have accepted and not yet closed; a connection in a
/// listener's queue, and the last bytes of one that they have closed, only the kernel knows of.
///
/// # Errors
/// [`ConnectionsError::List`].
pub fn is_relaying(ipv6: Ipv6) -> Result<bool, ConnectionsError> {
    Ok(list(ipv6, diag::list_request)?.iter().any(is_relayed))
}

/// Listeners with our mark, whoever has them open.
///
/// # Errors
/// [`ConnectionsError::List`].
pub fn of_agent_listening(ipv6: Ipv6) -> Result<Vec<TcpSocket>, ConnectionsError> {
    let mut all = list(ipv6, diag::listeners_request)?;
    all.retain(is_ours);
    Ok(all)
}

fn is_ours(socket: &TcpSocket) -> bool {
    socket.mark & mark::OURS.mask == mark::OURS.value
}

/// Tunnels that are accepted may be idle, and proxies count what goes through them; their packets need no rule.
fn is_relayed(socket: &TcpSocket) -> bool {
    let held = socket.inode != 0;
    let ours = is_ours(socket);
    if socket.local.port() == HBONE_PORT || socket.remote.port() == HBONE_PORT {
        let waits = !held && socket.local.port() == HBONE_PORT;
        return ours && waits && matches!(socket.state, diag::ESTABLISHED | diag::SYN_RECV | diag::NEW_SYN_RECV);
    }
    // What nobody holds in FIN_WAIT2 has been acknowledged to its last byte.
    ours && (held || socket.state != diag::FIN_WAIT2)
}

fn list(ipv6: Ipv6, request: impl Fn(Family) -> Vec<u8>) -> Result<Vec<TcpSocket>, ConnectionsError> {
    let channel = open()?;
    let mut all = Vec::new();
    for family in ipv6.guarded() {
        transmit(&channel, &request(*family))?;
        loop {
            let answer = receive(&channel)?;
            all.extend(answer.sockets);
            match answer.end {
                Some(0) => break,
                Some(number) => return Err(io::Error::from_raw_os_error(number).into()),
                None => {}
            }
        }
    }
    Ok(all)
}

/// A captured connection has both ends in the pod: the agent's socket carries our mark and the same addresses reversed.
fn not_relayed(all: Vec<TcpSocket>) -> Vec<TcpSocket> {
    let (ours, theirs): (Vec<_>, Vec<_>) = all.into_iter().partition(is_ours);
    let ours: BTreeSet<_> = ours.into_iter().map(|socket| (socket.remote, socket.local)).collect();
    let outside = |socket: &TcpSocket| {
        let remote = socket.remote.ip();
        !remote.is_loopback() && socket.local.ip() != remote
    };
    theirs.into_iter().filter(|socket| outside(socket) && !ours.contains(&(socket.local, socket.remote))).collect()
}

/// Whether a call to this namespace has ever been taken, by whomever: then there may be callers who do not know yet that
/// they should tunnel. Counts what stays on `lo`, too.
///
/// # Errors
/// The kernel's counters cannot be read.
pub fn was_called() -> io::Result<bool> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "no Tcp PassiveOpens in /proc/net/snmp");
    passive_opens(&text).map(|count| count > 0).ok_or_else(unknown)
}

/// From two lines of `Tcp:`, names and values.
fn passive_opens(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:")).map(str::split_whitespace);
    let (names, values) = (lines.next()?, lines.next()?);
    names.zip(values).find(|(name, _)| *name == "PassiveOpens")?.1.parse().ok()
}

/// Their cookies, to recognise them later.
#[must_use]
pub fn cookies(sockets: &[TcpSocket]) -> BTreeSet<u64> {
    sockets.iter().map(TcpSocket::cookie).collect()
}

/// Aborts connections on both sides; returns how many there were. One that ended meanwhile is no error.
///
/// # Errors
/// [`ConnectionsError::Destroy`] when the kernel does not do it.
pub fn reset(sockets: &[TcpSocket]) -> Result<usize, ConnectionsError> {
    let channel = open()?;
    let mut count = 0;
    for socket in sockets {
        transmit(&channel, &diag::destroy_request(socket))?;
        match receive(&channel)?.end.unwrap_or(0) {
            0 => count += 1,
            number if Errno::from_raw(number) == Errno::ENOENT => {}
            number => return Err(ConnectionsError::Destroy(io::Error::from_raw_os_error(number))),
        }
    }
    Ok(count)
}

/// One end of a connection, if there is such a socket in this namespace.
pub(super) fn find(channel: &OwnedFd, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<TcpSocket>> {
    transmit(channel, &diag::exact_request(local, remote))?;
    let answer = receive(channel)?;
    match (answer.sockets.into_iter().next(), answer.end) {
        // Without a connection of these addresses, a listener at `local` is what the kernel finds.
        (Some(socket), _) => Ok((socket.local == local && socket.remote == remote).then_some(socket)),
        (None, Some(number)) if Errno::from_raw(number) == Errno::ENOENT => Ok(None),
        (None, number) => Err(io::Error::from_raw_os_error(number.unwrap_or_default())),
    }
}

/// A socket to ask the kernel with about the sockets of this thread's network namespace, also later from elsewhere.
pub(super) fn open() -> io::Result<OwnedFd> {
    netlink::open(SockProtocol::NetlinkSockDiag)
}

fn receive(channel: &OwnedFd) -> io::Result<Answer> {
    netlink::receive(channel).map(|datagram| diag::parse(&datagram))
}

#[cfg(test)]
mod tests {
    use super::passive_opens;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let text = "Icmp: A\nIcmp: 7\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens\nTcp: 1 -1 5 3\n";
        assert_eq!(passive_opens(text), Some(3));
        assert_eq!(passive_opens("Tcp: ActiveOpens\nTcp: 1\n"), None);
        assert_eq!(passive_opens(""), None);
    }
}
