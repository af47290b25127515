//! The kernel's list of TCP sockets (sock_diag): records written and read without unsafe code. Pure.
//!
//! Source: include/uapi/linux/{netlink,sock_diag,inet_diag}.h. Numbers of the netlink header are in the machine's byte
//! order; ports and addresses in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::handover::Family;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const INET_DIAG_MARK: u16 = 15;
const IPPROTO_TCP: u8 = 6;
/// Header of a netlink message.
pub(super) const HEADER: usize = 16;
/// struct inet_diag_sockid.
const SOCKET_ID: usize = 48;
/// struct inet_diag_msg.
const MESSAGE: usize = 72;

/// States of a connection that still can carry or end something: all but CLOSE (7), TIME_WAIT (6), LISTEN (10).
/// Bit n is state n of include/net/tcp_states.h; NEW_SYN_RECV is 12.
pub const LIVE_STATES: u32 = 0b1_1011_0011_1110;

/// State of a connection that both ends can use.
pub const ESTABLISHED: u8 = 1;
/// The handshake is under way; the second is that of a request that has no socket yet.
pub const SYN_RECV: u8 = 3;
/// See [`SYN_RECV`].
pub const NEW_SYN_RECV: u8 = 12;
/// All that was sent is acknowledged, the end too.
pub const FIN_WAIT2: u8 = 5;

/// LISTEN alone.
const LISTEN_STATE: u32 = 1 << 10;

/// One TCP socket of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Kernel's identification, returned as it came to destroy just this socket.
    id: [u8; SOCKET_ID],
    family: u8,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// SO_MARK.
    pub mark: u32,
    /// By include/net/tcp_states.h; [`ESTABLISHED`] is 1.
    pub state: u8,
    /// The user that made it, in the user namespace of who asks.
    pub uid: u32,
    /// What its owner's descriptors lead to (`socket:[INODE]`); 0 when nobody has it open any more.
    pub inode: u32,
}

impl TcpSocket {
    /// A listener with our mark, for tables of tests.
    #[cfg(test)]
    pub(super) fn listening(local: SocketAddr, cookie: u64) -> Self {
        let mut id = [0; SOCKET_ID];
        id[40..48].copy_from_slice(&cookie.to_ne_bytes());
        let (family, remote) = (if local.is_ipv4() { 2 } else { 10 }, SocketAddr::from(([0, 0, 0, 0], 0)));
        Self { id, family, local, remote, mark: super::mark::OURS.value, state: 10, uid: 0, inode: 1 }
    }

    /// Tells this socket from every other, also a later one of the same addresses.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        let mut cookie = [0; 8];
        cookie.copy_from_slice(&self.id[40..48]);
        u64::from_ne_bytes(cookie)
    }
}

/// What one datagram of an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Sockets in it.
    pub sockets: Vec<TcpSocket>,
    /// The end of the list, or the acknowledgement: 0, or an error number.
    pub end: Option<i32>,
}

/// Asks for every TCP socket of a family in [`LIVE_STATES`].
#[must_use]
pub fn list_request(family: Family) -> Vec<u8> {
    let family = if family == Family::V4 { 2 } else { 10 };
    request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, LIVE_STATES, &[0; SOCKET_ID])
}

/// Asks for every listening TCP socket of a family.
#[must_use]
pub fn listeners_request(family: Family) -> Vec<u8> {
    let family = if family == Family::V4 { 2 } else { 10 };
    request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, LISTEN_STATE, &[0; SOCKET_ID])
}

/// Asks for the socket of one end of a connection; without one the kernel may answer with a listener at `local`, or ENOENT. The
/// addresses are of one family, and not IPv6 spellings of IPv4 ones.
#[must_use]
pub fn exact_request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut id = [0; SOCKET_ID];
    for (end, (port, address)) in [(local, (0, 4)), (remote, (2, 20))] {
        id[port..port + 2].copy_from_slice(&end.port().to_be_bytes());
        match end.ip() {
            IpAddr::V4(ip) => id[address..address + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[address..address + 16].copy_from_slice(&ip.octets()),
        }
    }
    // INET_DIAG_NOCOOKIE, twice: whichever socket has these addresses.
    id[40..48].fill(0xff);
    request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, if local.is_ipv4() { 2 } else { 10 }, u32::MAX, &id)
}

/// Asks to abort one socket: its owner gets ECONNABORTED, the other end a reset.
#[must_use]
pub fn destroy_request(socket: &TcpSocket) -> Vec<u8> {
    request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, socket.family, u32::MAX, &socket.id)
}

fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; SOCKET_ID]) -> Vec<u8> {
    const LENGTH: u32 = (HEADER + 8 + SOCKET_ID) as u32;
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // Sequence and port: one request at a time on a socket of its own.
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Reads one datagram of the kernel. Never panics: what is cut off ends the reading.
#[must_use]
pub fn parse(mut bytes: &[u8]) -> Answer {
    let mut answer = Answer::default();
    while let Some((kind, body, rest)) = split_message(bytes) {
        match kind {
            NLMSG_DONE => answer.end = Some(0),
            NLMSG_ERROR => {
                answer.end = Some(body.get(..4).and_then(to_array).map_or(0, i32::from_ne_bytes).saturating_neg())
            }
            SOCK_DIAG_BY_FAMILY => answer.sockets.extend(parse_socket(body)),
            _ => {}
        }
        bytes = rest;
    }
    answer
}

pub(super) fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(to_array(bytes.get(..4)?)?) as usize;
    let kind = u16::from_ne_bytes(to_array(bytes.get(4..6)?)?);
    let body = bytes.get(HEADER..length)?;
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((kind, body, &bytes[next..]))
}

fn parse_socket(body: &[u8]) -> Option<TcpSocket> {
    let (fixed, attributes) = body.split_at_checked(MESSAGE)?;
    let id: [u8; SOCKET_ID] = to_array(&fixed[4..4 + SOCKET_ID])?;
    let family = fixed[0];
    let address = |from: usize| -> Option<IpAddr> {
        match family {
            2 => Some(Ipv4Addr::from(to_array::<4>(&id[from..from + 4])?).into()),
            10 => Some(Ipv6Addr::from(to_array::<16>(&id[from..from + 16])?).to_canonical()),
            _ => None,
        }
    };
    let port = |from: usize| u16::from_be_bytes([id[from], id[from + 1]]);
    let number = |from: usize| to_array(&fixed[from..from + 4]).map_or(0, u32::from_ne_bytes);
    Some(TcpSocket {
        local: SocketAddr::new(address(4)?, port(0)),
        remote: SocketAddr::new(address(20)?, port(2)),
        mark: find_attribute(attributes, INET_DIAG_MARK).and_then(to_array).map_or(0, u32::from_ne_bytes),
        state: fixed[1],
        uid: number(64),
        inode: number(68),
        id,
        family,
    })
}

pub(super) fn find_attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(to_array(bytes.get(..2)?)?));
        let kind = u16::from_ne_bytes(to_array(bytes.get(2..4)?)?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

pub(super) fn to_array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn socket_body(mark: u32) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        body[0] = 2;
        body[1] = ESTABLISHED;
        body[64..68].copy_from_slice(&7u32.to_ne_bytes());
        body[68..72].copy_from_slice(&4711u32.to_ne_bytes());
        body[4..8].copy_from_slice(&[0x1f, 0x90, 0xa0, 0x01]);
        body[8..12].copy_from_slice(&[10, 0, 0, 1]);
        body[24..28].copy_from_slice(&[10, 0, 0, 2]);
        body[44..52].copy_from_slice(&7u64.to_ne_bytes());
        body.extend([5, 0, 8, 0, 1, 0, 0, 0]); // INET_DIAG_SHUTDOWN, padded.
        body.extend([8, 0, 15, 0]);
        body.extend(mark.to_ne_bytes());
        body
    }

    #[test]
    fn a_list_is_read_and_its_sockets_can_be_named_again() {
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, &socket_body(0x539));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, &socket_body(0)));
        bytes.extend(message(NLMSG_DONE, &[0; 4]));
        let answer = parse(&bytes);
        assert_eq!(answer.end, Some(0));
        let marks: Vec<_> = answer.sockets.iter().map(|socket| socket.mark).collect();
        assert_eq!(marks, [0x539, 0]);
        let socket = &answer.sockets[0];
        assert_eq!(
            (socket.local, socket.remote),
            ("10.0.0.1:8080".parse().unwrap(), "10.0.0.2:40961".parse().unwrap())
        );
        assert_eq!((socket.cookie(), socket.state, socket.uid, socket.inode), (7, ESTABLISHED, 7, 4711));
        let exact = exact_request(socket.local, socket.remote);
        assert_eq!(
            (&exact[24..64], &exact[64..72]),
            (&socket_body(0)[4..44], &[0xff; 8][..]),
            "the same, of any cookie"
        );
        let request = destroy_request(socket);
        assert_eq!(request.len(), 72);
        assert_eq!(&request[24..], &socket_body(0)[4..52], "the identification goes back as it came");
    }

    #[test]
    fn an_error_is_its_number() {
        assert_eq!(parse(&message(NLMSG_ERROR, &(-95i32).to_ne_bytes())).end, Some(95));
        assert_eq!(parse(&message(NLMSG_ERROR, &0i32.to_ne_bytes())).end, Some(0));
    }

    #[test]
    fn live_states() {
        let live: Vec<_> = (0..32).filter(|state| LIVE_STATES >> state & 1 == 1).collect();
        // ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 CLOSE_WAIT LAST_ACK CLOSING NEW_SYN_RECV
        assert_eq!(live, [1, 2, 3, 4, 5, 8, 9, 11, 12]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..400)) {
            let _answer = parse(&bytes);
        }

        #[test]
        fn cut_off_lists_are_answered(cut in 0usize..200) {
            let bytes = message(SOCK_DIAG_BY_FAMILY, &socket_body(1));
            prop_assert!(parse(&bytes[..cut.min(bytes.len())]).sockets.len() <= 1);
        }
    }
}
