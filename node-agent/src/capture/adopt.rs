//! Listeners that a proxy brings back to a successor of the capture half that made them: which of them still are what this
//! half would make, so that a restart changes no listener and loses no connection that waits in one.
//!
//! Who brings them is less privileged, so nothing is believed: the kernel says which listeners are in the pod's network
//! namespace, and a socket is known again by its cookie, which it keeps for life and no other one gets.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use socket2::SockRef;

use super::{
    closing::take_new_again,
    connections,
    diag::TcpSocket,
    mark::{HBONE_PORT, listen_address},
    socket::{Ipv6, KEEPALIVE, Listener, Listeners, SocketError, is_candidate},
};
use crate::handover::{Family, ListenerRole, ListenerTag};

/// What a proxy says that it holds of one pod.
pub(super) type Claim = Vec<(ListenerTag, Arc<OwnedFd>)>;

/// What the kernel says of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Described {
    cookie: u64,
    options: Options,
}

/// Options that every listener of ours has; the mark comes with the kernel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    transparent: bool,
    reuse_address: bool,
    reuse_port: bool,
    no_delay: bool,
    non_blocking: bool,
    linger: Option<Duration>,
    keepalive: Duration,
}

/// As `socket.rs` sets them.
const OURS: Options = Options {
    transparent: true,
    reuse_address: true,
    reuse_port: true,
    no_delay: true,
    non_blocking: true,
    linger: Some(Duration::ZERO),
    keepalive: KEEPALIVE.0,
};

/// What is done with a listener that a proxy brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is as if just made.
    Keep,
    /// Another one is made in its place.
    Replace(&'static str),
    /// Nothing takes its place: nobody is to accept from it.
    Close(&'static str),
}

/// Listeners for a pod: those of the claim that still fit, and new ones where there are none. In the namespace of the
/// calling thread.
///
/// # Errors
/// [`SocketError`]; nothing new is left open then.
pub(super) fn open(claim: &Claim, workers: usize, ipv6: Ipv6) -> Result<Listeners, SocketError> {
    if claim.is_empty() {
        return Listeners::open(workers, ipv6.families());
    }
    let claimed: Vec<_> = claim.iter().map(|(tag, socket)| (*tag, describe(*tag, socket).ok())).collect();
    // Without the kernel's list nothing is proven, and everything is replaced.
    let there = connections::of_agent_listening(ipv6).unwrap_or_default();
    let verdicts = decide(&claimed, &there, ipv6.families());
    let mut kept = Vec::new();
    for ((tag, socket), verdict) in claim.iter().zip(&verdicts) {
        match verdict {
            Verdict::Keep => {
                take_new_again(socket);
                kept.push(Listener { tag: *tag, socket: socket.clone() });
            }
            Verdict::Replace(why) | Verdict::Close(why) => {
                tracing::warn!(?tag, ?verdict, why, "a listener that a proxy holds is not as it was made");
            }
        }
    }
    tracing::debug!(kept = kept.len(), claimed = claim.len(), "listeners taken over from a proxy");
    Listeners::around(kept, &there, workers, ipv6.families())
}

fn describe(tag: ListenerTag, socket: &OwnedFd) -> io::Result<Described> {
    let socket = SockRef::from(socket);
    let transparent = match tag.family {
        Family::V4 => socket.ip_transparent_v4()?,
        Family::V6 => socket.ip_transparent_v6()? && socket.only_v6()?,
    };
    let options = Options {
        transparent,
        reuse_address: socket.reuse_address()?,
        reuse_port: socket.reuse_port()?,
        no_delay: socket.tcp_nodelay()?,
        non_blocking: socket.nonblocking()?,
        linger: socket.linger()?,
        keepalive: socket.tcp_keepalive_time()?,
    };
    Ok(Described { cookie: socket.cookie()?, options })
}

/// One verdict for each claimed listener. `there`: listeners with our mark in the pod's namespace, by the kernel's word.
fn decide(claimed: &[(ListenerTag, Option<Described>)], there: &[TcpSocket], families: &[Family]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    // All listeners of a role have one port, which the rules name: the first one that fits says which.
    let mut ports = BTreeMap::new();
    for (index, (tag, described)) in claimed.iter().enumerate() {
        let taken = |other: &(&(ListenerTag, _), &Verdict)| other.0.0 == *tag && *other.1 == Verdict::Keep;
        let verdict = if !families.contains(&tag.family) {
            Verdict::Close("the pod does not speak this family any more")
        } else if claimed[..index].iter().zip(&verdicts).any(|other| taken(&other)) {
            Verdict::Close("there is another one for the same worker")
        } else {
            match fits(*tag, described.as_ref(), there, ports.get(&tag.role).copied()) {
                Ok(port) => {
                    ports.insert(tag.role, port);
                    Verdict::Keep
                }
                Err(why) => Verdict::Replace(why),
            }
        };
        verdicts.push(verdict);
    }
    verdicts
}

/// The port of a listener that may be kept.
fn fits(
    tag: ListenerTag,
    described: Option<&Described>,
    there: &[TcpSocket],
    port: Option<u16>,
) -> Result<u16, &'static str> {
    let described = described.ok_or("it is no TCP socket")?;
    let found = there.iter().find(|socket| socket.cookie() == described.cookie);
    let local = found.ok_or("it does not listen with our mark in this pod's network namespace")?.local;
    let (address, right_port) = match tag.role {
        ListenerRole::Hbone => (local.ip().is_unspecified(), local.port() == HBONE_PORT),
        role => (local.ip() == listen_address(tag.family), is_candidate(role, local.port())),
    };
    if !address || Family::of(local.ip()) != tag.family || !right_port || port.is_some_and(|port| port != local.port())
    {
        return Err("it listens elsewhere");
    }
    if described.options != OURS { Err("its options are other ones") } else { Ok(local.port()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::diag::TcpSocket;

    const V4: &[Family] = &[Family::V4];
    const BOTH: &[Family] = &[Family::V4, Family::V6];

    fn tag(worker: usize, role: ListenerRole, family: Family) -> ListenerTag {
        ListenerTag { worker, role, family }
    }

    fn good(cookie: u64) -> Option<Described> {
        Some(Described { cookie, options: OURS })
    }

    fn there() -> Vec<TcpSocket> {
        let all = [
            ("192.0.0.8:15001", 1),
            ("192.0.0.8:15001", 2),
            ("192.0.0.8:15101", 3),
            ("[100::8]:15001", 4),
            ("0.0.0.0:15008", 5),
            ("[::]:15008", 6),
            ("10.1.1.2:15006", 7),
            ("192.0.0.8:22", 8),
            ("192.0.0.8:15006", 9),
        ];
        all.map(|(local, cookie)| TcpSocket::listening(local.parse().unwrap(), cookie)).into()
    }

    #[test]
    fn what_is_as_it_was_made_is_kept() {
        use ListenerRole::{Hbone, Inbound, Outbound};
        let claimed = [
            (tag(0, Outbound, Family::V4), good(1)),
            (tag(1, Outbound, Family::V4), good(2)),
            (tag(0, Outbound, Family::V6), good(4)),
            (tag(0, Hbone, Family::V4), good(5)),
            (tag(0, Hbone, Family::V6), good(6)),
            (tag(0, Inbound, Family::V4), good(9)),
        ];
        assert_eq!(decide(&claimed, &there(), BOTH), [Verdict::Keep; 6]);
        let closed = Verdict::Close("the pod does not speak this family any more");
        assert_eq!(decide(&claimed[1..3], &there(), V4), [Verdict::Keep, closed]);
    }

    #[test]
    fn what_is_not_is_replaced() {
        use ListenerRole::{Hbone, Inbound, Outbound};
        let (strange, elsewhere) =
            ("it does not listen with our mark in this pod's network namespace", "it listens elsewhere");
        let odd = |options| Some(Described { cookie: 1, options });
        let other_options = "its options are other ones";
        let table = [
            (Outbound, Family::V4, good(77), strange),
            (Outbound, Family::V4, None, "it is no TCP socket"),
            (Inbound, Family::V4, good(7), elsewhere),
            (Outbound, Family::V4, good(8), elsewhere),
            (Outbound, Family::V6, good(1), elsewhere),
            (Hbone, Family::V6, good(5), elsewhere),
            (Hbone, Family::V4, good(1), elsewhere),
            (Inbound, Family::V4, good(1), elsewhere),
            (Outbound, Family::V4, odd(Options { transparent: false, ..OURS }), other_options),
            (Outbound, Family::V4, odd(Options { linger: None, ..OURS }), other_options),
            (Outbound, Family::V4, odd(Options { reuse_port: false, ..OURS }), other_options),
        ];
        for (role, family, described, why) in table {
            let verdicts = decide(&[(tag(0, role, family), described)], &there(), BOTH);
            assert_eq!(verdicts, [Verdict::Replace(why)], "{role:?} {family:?} {described:?}");
        }
    }

    #[test]
    fn one_port_for_a_role_and_one_listener_for_a_worker() {
        let outbound = |worker| tag(worker, ListenerRole::Outbound, Family::V4);
        let claimed = [(outbound(0), good(1)), (outbound(1), good(3)), (outbound(0), good(2))];
        let twice = Verdict::Close("there is another one for the same worker");
        let expected = [Verdict::Keep, Verdict::Replace("it listens elsewhere"), twice];
        assert_eq!(decide(&claimed, &there(), BOTH), expected);
        // A port that was chosen because the usual one was taken.
        assert_eq!(decide(&claimed[1..2], &there(), BOTH), [Verdict::Keep]);
    }
}
