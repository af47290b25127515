//! The sockets that the capture half makes inside a pod, and their options (`docs/capture.md`).
//!
//! Every socket of the agent is transparent (TPROXY hands packets to no other) and carries our mark (guards and rules
//! know it by that). The functions work in the network namespace of the calling thread.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::{
    diag::TcpSocket,
    mark::{self, CapturePorts, HBONE_PORT, listen_address},
};
use crate::{
    handover::{Family, ListenerRole, ListenerTag},
    loopback,
};

/// Connections that wait for a proxy: as many as the kernel's own default limit (net.core.somaxconn) allows, since the
/// queue is what bridges a proxy's restart.
const BACKLOG: i32 = 4096;

/// Keepalive: 180 s idle, 15 s between probes, 4 probes: the reasons are in `worker/sockets.rs`.
pub(super) const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(180), Duration::from_secs(15), 4);

/// Other ports are tried in steps of this size: 15101, 15201, ... stay near what people know from `ss`.
const PORT_STEP: u16 = 100;

/// How many ports are tried before giving up: a pod that holds all of them does so on purpose.
const PORT_ATTEMPTS: u16 = 20;

/// Why a socket cannot be made.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The application holds HBONE's port.
    #[error(
        "a program in the pod holds port {HBONE_PORT}, which belongs to the mesh: stop it or move it, the pod is not captured until then"
    )]
    HbonePortTaken,
    /// The application holds every port that was tried.
    #[error("no free port for the {role:?} listener between {first} and {last}")]
    NoPort {
        /// Which listener.
        role: ListenerRole,
        /// First one tried.
        first: u16,
        /// Last one tried.
        last: u16,
    },
    /// Missing privilege.
    #[error("cannot make a transparent or marked socket: {0}; needs CAP_NET_ADMIN in the pod's network namespace")]
    Privilege(io::Error),
    /// Anything else, such as too many open files.
    #[error("cannot make a socket: {0}")]
    Io(#[from] io::Error),
}

/// Whether the pod can speak IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// As usual.
    Usable,
    /// Switched off by sysctl: no listeners and no route, but the guards are loaded.
    Off,
    /// The kernel has none: nothing to guard.
    Absent,
}

impl Ipv6 {
    /// Looks into the namespace of the calling thread.
    #[must_use]
    pub fn detect() -> Self {
        if Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_err() {
            return Self::Absent;
        }
        // On lo, because that is where the captured traffic goes.
        match std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6") {
            Ok(text) if text.trim() == "0" => Self::Usable,
            _ => Self::Off,
        }
    }

    /// The families that have listeners and routes.
    #[must_use]
    pub fn families(self) -> &'static [Family] {
        if self == Self::Usable { &[Family::V4, Family::V6] } else { &[Family::V4] }
    }

    /// The families that have rules.
    #[must_use]
    pub fn guarded(self) -> &'static [Family] {
        if self == Self::Absent { &[Family::V4] } else { &[Family::V4, Family::V6] }
    }
}

/// Lets connections that wait in a listener that is closed go over to another one of the same port, most of those whose
/// handshake is under way included, which the kernel resets otherwise (measured: it loses half as many): a capture half that comes back, and a proxy with another
/// number of workers, replace listeners under load. For the whole namespace of the calling thread; IPv6 too, in spite of
/// the name (net.ipv4.tcp_migrate_req, Linux 5.14).
///
/// # Errors
/// An older kernel, or /proc/sys that may not be written.
pub fn migrate_waiting(on: bool) -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", if on { "1" } else { "0" })
}

/// A listener and what it is; shared by the capture half and, as a duplicate, by proxies.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What it is.
    pub tag: ListenerTag,
    /// The listening socket.
    pub socket: Arc<OwnedFd>,
}

/// The listeners of one pod: a set for each worker of the proxy.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// Ports of the captured traffic's listeners; the rules must name them.
    pub ports: CapturePorts,
    /// By worker, then role, then family.
    pub all: Vec<Listener>,
}

impl Listeners {
    /// Makes the sets of `workers` workers, on other ports than usual where a program of the pod holds those.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left open then.
    pub fn open(workers: usize, families: &[Family]) -> Result<Self, SocketError> {
        let ports = CapturePorts {
            outbound: free_port(ListenerRole::Outbound, families)?,
            inbound: free_port(ListenerRole::Inbound, families)?,
        };
        let mut listeners = Self { ports, all: Vec::new() };
        listeners.resize(workers, families)?;
        Ok(listeners)
    }

    /// Sets around listeners that are there already (`there`: all of ours in this namespace, with their addresses): as many
    /// as those are for, else `workers`. What is missing is made.
    ///
    /// # Errors
    /// [`SocketError`]; nothing new is left open then.
    pub(super) fn around(
        kept: Vec<Listener>,
        there: &[TcpSocket],
        workers: usize,
        families: &[Family],
    ) -> Result<Self, SocketError> {
        let port = |role| {
            let of_role = kept.iter().find(|listener| listener.tag.role == role)?;
            let cookie = SockRef::from(&*of_role.socket).cookie().ok()?;
            there.iter().find(|socket| socket.cookie() == cookie).map(|socket| socket.local.port())
        };
        let known = |role| port(role).map_or_else(|| free_port(role, families), Ok);
        let ports = CapturePorts { outbound: known(ListenerRole::Outbound)?, inbound: known(ListenerRole::Inbound)? };
        let mut listeners = Self { ports, all: kept };
        let wanted = if listeners.all.is_empty() { workers } else { listeners.workers() };
        listeners.complete(wanted, families)?;
        Ok(listeners)
    }

    /// Makes what is missing of so many workers.
    fn complete(&mut self, workers: usize, families: &[Family]) -> Result<usize, SocketError> {
        let mut added = Vec::new();
        for worker in 0..workers {
            for role in ListenerRole::ALL {
                for family in families.iter().copied() {
                    let tag = ListenerTag { worker, role, family };
                    if !self.all.iter().any(|listener| listener.tag == tag) {
                        let socket = Arc::new(listen(role, family, self.ports.of(role))?.into());
                        added.push(Listener { tag, socket });
                    }
                }
            }
        }
        let count = added.len();
        self.all.extend(added);
        self.all.sort_by_key(|listener| listener.tag);
        Ok(count)
    }

    /// Keeps the sets of the workers that stay, makes those of new ones, closes the rest: a queue that nobody accepts
    /// from only fills.
    ///
    /// # Errors
    /// [`SocketError`]; the sets that were there stay.
    pub fn resize(&mut self, workers: usize, families: &[Family]) -> Result<(), SocketError> {
        self.complete(workers, families)?;
        self.all.retain(|listener| listener.tag.worker < workers);
        Ok(())
    }

    /// Makes those anew that somebody has closed (SOCK_DESTROY, as `ss -K` does, reaches listeners too), and those that are
    /// missing of the families. Says how many.
    ///
    /// # Errors
    /// [`SocketError`]; the others stay as they are.
    pub fn mend(&mut self, families: &[Family]) -> Result<usize, SocketError> {
        let mut mended = 0;
        for listener in &mut self.all {
            if !SockRef::from(&*listener.socket).is_listener()? {
                let tag = listener.tag;
                listener.socket = Arc::new(listen(tag.role, tag.family, self.ports.of(tag.role))?.into());
                mended += 1;
            }
        }
        Ok(mended + self.complete(self.workers(), families)?)
    }

    /// Whether these are the very same sockets, not only alike.
    #[must_use]
    pub fn same_sockets(&self, other: &Self) -> bool {
        let pairs = self.all.iter().zip(&other.all);
        self.all.len() == other.all.len() && pairs.into_iter().all(|(one, two)| Arc::ptr_eq(&one.socket, &two.socket))
    }

    /// How many workers have listeners.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.all.iter().map(|listener| listener.tag.worker + 1).max().unwrap_or(0)
    }
}

/// Unbound sockets to dial with: the proxy binds and connects them.
///
/// # Errors
/// [`SocketError`] when not a single one could be made.
pub fn dial_sockets(family: Family, count: usize) -> Result<Vec<OwnedFd>, SocketError> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        match marked(family) {
            Ok(socket) => sockets.push(socket.into()),
            // Some are better than none: the proxy asks again when they are used up.
            Err(_) if !sockets.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// The first port that both families can listen on.
fn free_port(role: ListenerRole, families: &[Family]) -> Result<u16, SocketError> {
    let usual = CapturePorts::default().of(role);
    for port in candidates(role) {
        match families.iter().try_for_each(|family| listen(role, *family, port).map(drop)) {
            Ok(()) => return Ok(port),
            Err(SocketError::Io(error)) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(SocketError::NoPort { role, first: usual, last: usual + (PORT_ATTEMPTS - 1) * PORT_STEP })
}

fn candidates(role: ListenerRole) -> impl Iterator<Item = u16> {
    let usual = CapturePorts::default().of(role);
    (0..PORT_ATTEMPTS).map(move |attempt| usual + attempt * PORT_STEP)
}

/// Whether a listener of captured traffic may have this port.
pub(super) fn is_candidate(role: ListenerRole, port: u16) -> bool {
    candidates(role).any(|candidate| candidate == port)
}

fn listen(role: ListenerRole, family: Family, port: u16) -> Result<Socket, SocketError> {
    let address = match (role, family) {
        (ListenerRole::Hbone, Family::V4) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (ListenerRole::Hbone, Family::V6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        (_, family) => listen_address(family),
    };
    let socket = marked(family)?;
    socket.set_reuse_port(true)?;
    // The pod's own programs call it; the other two are called from the wire.
    if role == ListenerRole::Outbound {
        loopback::tune(&SockRef::from(&socket))?;
    }
    let bound = socket.bind(&SockAddr::from(SocketAddr::new(address, port))).and_then(|()| socket.listen(BACKLOG));
    match bound {
        Ok(()) => Ok(socket),
        Err(error) if role == ListenerRole::Hbone && error.kind() == io::ErrorKind::AddrInUse => {
            Err(SocketError::HbonePortTaken)
        }
        Err(error) => Err(error.into()),
    }
}

/// A socket with everything that all of ours have, so that the proxy sets nothing for each connection. Accepted sockets
/// inherit all of it from their listener. SO_LINGER {1, 0} makes any close a reset until a relay ended in order; SO_REUSEADDR lets an application restart on its port while relayed connections to it are alive (section 4).
fn marked(family: Family) -> Result<Socket, SocketError> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    let transparent = match family {
        Family::V4 => socket.set_ip_transparent_v4(true),
        Family::V6 => socket.set_ip_transparent_v6(true).and_then(|()| socket.set_only_v6(true)),
    };
    transparent.and_then(|()| socket.set_mark(mark::OURS.value)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => SocketError::Privilege(error),
        _ => SocketError::Io(error),
    })?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let (time, interval, retries) = KEEPALIVE;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries))?;
    Ok(socket)
}
