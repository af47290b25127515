//! Tells at once that rules or routes of a pod were changed, by whomever: netlink's own announcements. The audit that
//! follows finds out what, and whether it matters.
//!
//! iptables-legacy announces nothing; there the audits by the clock must do, as they must where a subscription is refused.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket},
};
use tokio::{io::Interest, net::UnixDatagram, time::Instant};

/// Every change of nf_tables (NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h).
const NFTABLES: u32 = group(7);
/// Links, IPv4 and IPv6 routes, IPv4 and IPv6 rules (include/uapi/linux/rtnetlink.h, enum rtnetlink_groups). Links, because
/// the routes of one that goes down vanish without a word.
const ROUTING: u32 = group(1) | group(7) | group(11) | group(8) | group(19);

/// Announcements are thrown away unread, so a datagram may be cut.
const DATAGRAM: usize = 64;

/// The least time between two audits after announcements: our own repairs are announced, too, and one more look at them is
/// enough.
const REST: Duration = Duration::from_millis(50);
/// The longest, with somebody who undoes every repair: a look costs some 20 ms of a processor.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Without a repair for this long, the next one is quick again.
const PEACE: Duration = Duration::from_secs(10);

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

/// Subscriptions of one namespace, to be made by a thread inside.
#[derive(Debug)]
pub struct Subscriptions([OwnedFd; 2]);

impl Subscriptions {
    /// Subscribes in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or CAP_NET_ADMIN is missing.
    pub fn make() -> io::Result<Self> {
        let netfilter = subscribe(SockProtocol::NetlinkNetFilter, NFTABLES)?;
        Ok(Self([netfilter, subscribe(SockProtocol::NetlinkRoute, ROUTING)?]))
    }
}

fn subscribe(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let channel = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(channel.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(channel)
}

/// The subscriptions as the runtime watches them. Tokio's datagram type only watches the descriptor here.
#[derive(Debug)]
pub struct Alarm([UnixDatagram; 2]);

impl Alarm {
    /// Must be called inside a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the runtime cannot watch them.
    pub fn new(Subscriptions([netfilter, routing]): Subscriptions) -> io::Result<Self> {
        Ok(Self([UnixDatagram::from_std(netfilter.into())?, UnixDatagram::from_std(routing.into())?]))
    }

    /// Completes when something has changed since the last call, or since [`Self::forget`]. Cancel-safe.
    pub async fn rings(&self) {
        let [netfilter, routing] = &self.0;
        loop {
            let (channel, ready) = tokio::select! {
                ready = netfilter.readable() => (netfilter, ready),
                ready = routing.readable() => (routing, ready),
            };
            let mut any = false;
            // Everything is taken, so the channel is no longer readable, which is what this error tells tokio.
            let _emptied: io::Result<()> = channel.try_io(Interest::READABLE, || {
                any = drain(channel);
                Err(io::ErrorKind::WouldBlock.into())
            });
            match ready {
                Ok(()) if any => return,
                Ok(()) => {}
                // The runtime ends.
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Whatever was announced up to now was our own doing.
    pub fn forget(&self) {
        self.0.iter().for_each(|channel| _ = drain(channel));
    }
}

/// Takes everything that waits; true: there was something.
fn drain(channel: &UnixDatagram) -> bool {
    let (mut any, mut datagram) = (false, [0; DATAGRAM]);
    loop {
        match recv(channel.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
            // More than the kernel's queue holds: something has happened, whatever it was.
            Ok(_) | Err(Errno::ENOBUFS) => any = true,
            Err(Errno::EINTR) => {}
            Err(_) => return any,
        }
    }
}

/// When to look after an announcement: at once, but not again and again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    not_before: Instant,
    rest: Duration,
    repaired: Instant,
}

impl Pace {
    /// As at the beginning.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { not_before: now, rest: REST, repaired: now }
    }

    /// Something was announced: when to look.
    #[must_use]
    pub fn announced(&self, now: Instant) -> Instant {
        now.max(self.not_before)
    }

    /// A look has ended.
    pub fn looked(&mut self, now: Instant, repaired: bool) {
        if now.saturating_duration_since(self.repaired) >= PEACE {
            self.rest = REST;
        }
        self.not_before = now + self.rest;
        if repaired {
            self.rest = (self.rest * 2).min(LONGEST_REST);
            self.repaired = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_is_at_once_and_a_quarrel_is_slow() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.announced(start), start);
        let mut now = start;
        let mut rest = |pace: &mut Pace, repaired| {
            pace.looked(now, repaired);
            let next = pace.announced(now);
            let rest = next - now;
            now = next;
            rest.as_millis()
        };
        let rests: Vec<u128> = (0..7).map(|_| rest(&mut pace, true)).collect();
        assert_eq!(rests, [50, 100, 200, 400, 500, 500, 500]);
        assert_eq!(rest(&mut pace, false), 500, "the look at our own repair proves no peace");
        let later = now + PEACE;
        assert_eq!(pace.announced(later), later);
        pace.looked(later, true);
        assert_eq!(pace.announced(later), later + REST);
    }
}
