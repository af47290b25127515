//! Questions to the kernel by netlink: sock_diag's and conntrack's, one at a time on a socket of their own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The kernel fills at most this much of a datagram of a list (NLMSG_GOODSIZE is one page; lists use up to 32 KiB).
const DATAGRAM: usize = 64 * 1024;

/// A socket to ask about the network namespace of the calling thread, also later from elsewhere.
pub(super) fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?)
}

pub(super) fn transmit(channel: &OwnedFd, request: &[u8]) -> io::Result<()> {
    // An unconnected netlink socket sends to the kernel.
    send(channel.as_raw_fd(), request, MsgFlags::empty())?;
    Ok(())
}

/// One datagram of the answer.
pub(super) fn receive(channel: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut datagram = vec![0; DATAGRAM];
    let length = recv(channel.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
    datagram.truncate(length);
    Ok(datagram)
}
