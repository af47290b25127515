//! Marks, addresses and ports of the capture: one place, because rules, routes and sockets must agree on them.
//!
//! `docs/capture.md` says what each is for. Marks never leave the pod: a veth into another namespace
//! clears them, so they collide with no CNI's marks on the node.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use crate::{
    handover::{Family, ListenerRole},
    ports,
};

/// A packet mark or connection mark with the bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The bits that are set.
    pub value: u32,
    /// The bits that are looked at.
    pub mask: u32,
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}/{:#x}", self.value, self.mask)
    }
}

const fn packet(value: u32) -> Mark {
    Mark { value, mask: 0xfff }
}

/// No mark of ours at all.
pub const NONE: Mark = packet(0);
/// Every socket of the agent (SO_MARK): istio's 1337, so that its tools recognise us.
pub const OURS: Mark = packet(0x539);
/// Packets of the application that policy routing sends back over `lo`.
pub const LOOP: Mark = packet(0x111);
/// Set by TPROXY: a socket of the agent has the packet.
pub const TAKEN: Mark = packet(0x112);
/// Only in transitions: let past, the connection is not the mesh's.
pub const OLD: Mark = packet(0x114);
/// Connection mark, only in transitions: its SYN was seen since the switch, and it goes through the agent.
pub const RELAYED: Mark = Mark { value: 0x200, mask: 0x600 };
/// Connection mark, only in transitions: its SYN was seen since the switch, and it goes past the mesh.
pub const DIRECT: Mark = Mark { value: 0x400, mask: 0x600 };

/// Routing table whose only route delivers everything to `lo`.
pub const ROUTE_TABLE: u8 = 100;
/// Preference of the rule that sends [`LOOP`] packets there: before the kernel's main table (32766).
pub const RULE_PREFERENCE: u32 = 32764;

/// HBONE's port, the same in every mesh of this wire.
pub const HBONE_PORT: u16 = ports::HBONE;
/// Local ports of dial sockets to the application: outside the default client range, so that no client's own port
/// meets them (`docs/capture.md`).
pub const DIAL_PORTS: RangeInclusive<u16> = 61000..=65535;

/// The address that the captured traffic's listeners sit on: nobody has it, so nobody can call it when rules are
/// missing. 192.0.0.8 is the IPv4 dummy address (RFC 7600), 100::/64 the discard-only prefix (RFC 6666).
#[must_use]
pub const fn listen_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8)),
    }
}

/// Ports of the captured traffic's listeners in one pod. Private numbers: nothing outside the pod sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CapturePorts {
    /// The pod's own calls.
    pub outbound: u16,
    /// Plaintext calls to the pod.
    pub inbound: u16,
}

impl CapturePorts {
    /// The port of a listener.
    #[must_use]
    pub fn of(self, role: ListenerRole) -> u16 {
        match role {
            ListenerRole::Outbound => self.outbound,
            ListenerRole::Inbound => self.inbound,
            ListenerRole::Hbone => HBONE_PORT,
        }
    }
}

impl Default for CapturePorts {
    /// Istio's numbers.
    fn default() -> Self {
        Self { outbound: ports::OUTBOUND, inbound: ports::INBOUND }
    }
}
