//! What conntrack remembers of a pod and must forget, so that every connection of a transition goes one way from its first packet
//! to its last (`docs/decisions/0029-what-conntrack-remembers.md`).
//!
//! The messages are written and read without unsafe code; the functions at the top work in the network namespace of the calling thread.
//! Source: include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack,nf_conntrack_common}.h. What is inside of attributes is
//! in network order.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::diag::{HEADER, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use super::diag::{find_attribute, split_message, to_array};
use super::mark::{self, Mark};
use super::netlink::{self, transmit};

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW`, `_GET` and `_DELETE`.
const ENTRY: u16 = 0x100;
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
/// struct nfgenmsg.
const GENERAL: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
/// Inside of a tuple, and inside of that.
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
const IPPROTO_TCP: u8 = 6;
/// `IPS_SEEN_REPLY`: packets went both ways.
const SEEN_REPLY: u32 = 1 << 1;

/// Forgets what earlier transitions have marked: since then conntrack was off, and has not seen those connections end.
///
/// # Errors
/// The kernel's, as when it has no nf_conntrack_netlink.
pub fn forget_marked() -> io::Result<()> {
    let channel = open()?;
    for mark in [mark::RELAYED, mark::DIRECT] {
        transmit(&channel, &message(DELETE, NLM_F_ACK, 0, &with_mark(mark)))?;
        receive(&channel)?.done()?;
    }
    Ok(())
}

/// Forgets strays: TCP connections that no transition has marked and of which conntrack has seen one direction alone. As a rule it
/// met the very last packet of a connection, took it for the first one of another, and waits for that for 300 s. One that lives
/// after all is picked up again with its next packet. Returns how many there were.
///
/// # Errors
/// As [`forget_marked`].
pub fn forget_strays() -> io::Result<usize> {
    let channel = open()?;
    let unmarked = Mark { value: 0, mask: mark::RELAYED.mask };
    transmit(&channel, &message(GET, NLM_F_DUMP, 0, &with_mark(unmarked)))?;
    let mut strays = Vec::new();
    loop {
        let answer = receive(&channel)?;
        let ended = answer.end.is_some();
        strays.extend(answer.done()?);
        if ended {
            break;
        }
    }
    for stray in &strays {
        transmit(&channel, &message(DELETE, NLM_F_ACK, stray.family, &stray.attributes))?;
        match receive(&channel)?.done() {
            Err(error) if error.raw_os_error() != Some(Errno::ENOENT as i32) => return Err(error),
            // It has ended by itself, or another one has its place.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(strays.len())
}

fn open() -> io::Result<OwnedFd> {
    netlink::open(SockProtocol::NetlinkNetFilter)
}

fn receive(channel: &OwnedFd) -> io::Result<Answer> {
    netlink::receive(channel).map(|datagram| parse(&datagram))
}

/// An entry that may be forgotten.
#[derive(Debug, PartialEq, Eq)]
struct Stray {
    family: u8,
    /// What names it: its tuple, its number, its zone; as they came.
    attributes: Vec<u8>,
}

/// What one datagram says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    strays: Vec<Stray>,
    /// The end of the list, or the acknowledgement: 0, or an error number.
    end: Option<i32>,
}

impl Answer {
    fn done(self) -> io::Result<Vec<Stray>> {
        match self.end {
            None | Some(0) => Ok(self.strays),
            Some(number) => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

fn with_mark(mark: Mark) -> Vec<u8> {
    [(CTA_MARK, mark.value), (CTA_MARK_MASK, mark.mask)]
        .iter()
        .flat_map(|(kind, value)| attribute(*kind, &value.to_be_bytes()))
        .collect()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERAL + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]); // Sequence and port: one request at a time on a socket of its own.
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// Reads one datagram of the kernel. Never panics: what is cut off ends the reading.
fn parse(mut bytes: &[u8]) -> Answer {
    let mut answer = Answer::default();
    while let Some((kind, body, rest)) = split_message(bytes) {
        match kind {
            NLMSG_DONE => answer.end = Some(0),
            NLMSG_ERROR => {
                answer.end = Some(body.get(..4).and_then(to_array).map_or(0, i32::from_ne_bytes).saturating_neg());
            }
            ENTRY => answer.strays.extend(stray(body)),
            _ => {}
        }
        bytes = rest;
    }
    answer
}

fn stray(body: &[u8]) -> Option<Stray> {
    let (general, attributes) = body.split_at_checked(GENERAL)?;
    let number = |kind| find(attributes, kind).and_then(to_array).map(u32::from_be_bytes);
    let tuple = find(attributes, CTA_TUPLE_ORIG)?;
    let protocol = find(find(tuple, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
    let unmarked = number(CTA_MARK).unwrap_or_default() & mark::RELAYED.mask == 0;
    if protocol != [IPPROTO_TCP] || !unmarked || number(CTA_STATUS)? & SEEN_REPLY != 0 {
        return None;
    }
    let mut named = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple);
    for kind in [CTA_ID, CTA_ZONE] {
        named.extend(find(attributes, kind).map(|value| attribute(kind, value)).unwrap_or_default());
    }
    Some(Stray { family: general[0], attributes: named })
}

/// Attributes that hold others may say so in their kind.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    find_attribute(attributes, kind).or_else(|| find_attribute(attributes, kind | NLA_F_NESTED))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | NLA_F_NESTED, &parts.concat())
    }

    fn entry(protocol: u8, status: u32, mark: u32) -> Vec<u8> {
        let addresses = nested(1, &[attribute(1, &[10, 0, 0, 1]), attribute(2, &[10, 0, 0, 2])]);
        let ports = nested(
            CTA_TUPLE_PROTO,
            &[attribute(CTA_PROTO_NUM, &[protocol]), attribute(2, &[0, 80]), attribute(3, &[0xe6, 0x96])],
        );
        let attributes = [
            nested(CTA_TUPLE_ORIG, &[addresses, ports]),
            attribute(CTA_STATUS, &status.to_be_bytes()),
            attribute(CTA_MARK, &mark.to_be_bytes()),
            attribute(CTA_ID, &[1, 2, 3, 4]),
        ];
        message(ENTRY, 0, 2, &attributes.concat())
    }

    /// Confirmed, and what else.
    const CONFIRMED: u32 = 1 << 3;

    #[test]
    fn what_is_unmarked_and_was_never_answered_is_a_stray_and_is_named_as_it_came() {
        let entries = [
            entry(IPPROTO_TCP, CONFIRMED, 0),
            entry(IPPROTO_TCP, CONFIRMED | SEEN_REPLY, 0),
            entry(IPPROTO_TCP, CONFIRMED, mark::RELAYED.value),
            entry(IPPROTO_TCP, CONFIRMED, mark::DIRECT.value),
            entry(17, CONFIRMED, 0),
            entry(IPPROTO_TCP, CONFIRMED, 0x1000), // somebody else's mark
        ];
        let answer = parse(&entries.concat());
        assert_eq!((answer.strays.len(), answer.end), (2, None));
        let whole = &entries[0][HEADER + GENERAL..];
        let tuple = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, find(whole, CTA_TUPLE_ORIG).unwrap());
        let named = [tuple, attribute(CTA_ID, &[1, 2, 3, 4])].concat();
        assert_eq!(answer.strays[0], Stray { family: 2, attributes: named });
    }

    #[test]
    fn ends_and_errors_are_read() {
        let error = |number: i32| {
            let mut bytes = message(NLMSG_ERROR, 0, 0, &[]);
            bytes[HEADER..].copy_from_slice(&number.to_ne_bytes());
            bytes
        };
        assert_eq!(parse(&error(0)).end, Some(0));
        assert_eq!(parse(&error(-2)).end, Some(2));
        assert_eq!(parse(&message(NLMSG_DONE, 0, 0, &[])).end, Some(0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
            let _answer = parse(&bytes);
        }

        #[test]
        fn entries_that_are_cut_off_or_altered_are_answered(cut in 0usize..200, at in 0usize..100, byte in any::<u8>()) {
            let mut bytes = entry(IPPROTO_TCP, CONFIRMED, 0);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            prop_assert!(parse(&bytes[..cut.min(bytes.len())]).strays.len() <= 1);
        }
    }
}
