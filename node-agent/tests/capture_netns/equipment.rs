//! What every test of this folder needs: back ends that work here, a captured pod, sockets with deadlines.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use socket2::{SockAddr, Socket};
use weft_node_agent::{
    capture::{
        install::{Installer, Wanted},
        mark::CapturePorts,
        program::Backend,
        ruleset::Phase,
        socket::{Ipv6, Listeners, dial_sockets},
    },
    handover::{Family, ListenerRole},
};
use weft_testkit::netns::Pod;

/// Long enough for two busy cores, short enough to be waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// For proving that something does not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The back ends that work on this machine; at least one must.
pub(crate) fn installers() -> Vec<Installer> {
    let lock = Path::new("/run/weft-xtables.lock");
    let mut found = Vec::new();
    for backend in [Backend::Nft, Backend::Legacy] {
        match block_on(Installer::of_backend(backend, lock)) {
            Ok(installer) => found.push(installer),
            Err(error) => eprintln!("SKIPPED back end {backend:?}: {error}"),
        }
    }
    assert!(!found.is_empty(), "no iptables works here");
    found
}

pub(crate) fn wanted(phase: Phase) -> Wanted {
    Wanted { phase, ports: CapturePorts::default(), ipv6: Ipv6::Usable }
}

/// Rules and listeners in a pod; what the capture half holds.
pub(crate) struct Captured {
    pub(crate) installer: Installer,
    pub(crate) listeners: Listeners,
    pub(crate) pod: Pod,
}

impl Captured {
    pub(crate) fn new(pod: &Pod, installer: &Installer, phase: Phase) -> Self {
        let listeners = pod.run(|| Listeners::open(1, &FAMILIES)).unwrap().unwrap();
        assert_eq!(listeners.ports, CapturePorts::default());
        let captured = Self { installer: installer.clone(), listeners, pod: pod.clone() };
        captured.change(phase);
        captured
    }

    pub(crate) fn change(&self, phase: Phase) {
        self.pod.run(|| self.installer.apply(wanted(phase))).unwrap().unwrap();
    }

    pub(crate) fn remove(&self) {
        self.pod.run(|| self.installer.remove(Ipv6::Usable)).unwrap().unwrap();
    }

    /// The next connection that the listener gets within a deadline.
    pub(crate) fn accept(
        &self,
        role: ListenerRole,
        family: Family,
        limit: Duration,
    ) -> Option<(TcpStream, SocketAddr)> {
        let is_it = |tag: weft_node_agent::handover::ListenerTag| tag.role == role && tag.family == family;
        let listener = self.listeners.all.iter().find(|listener| is_it(listener.tag)).unwrap();
        let listener = TcpListener::from(listener.socket.as_fd().try_clone_to_owned().unwrap());
        accept(&listener, limit)
    }
}

pub(crate) fn accept(listener: &TcpListener, limit: Duration) -> Option<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + limit;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                return Some((stream, peer));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => pause(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The step of waiting for a condition.
#[expect(clippy::disallowed_methods, reason = "polls sockets of another namespace until a deadline")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

pub(crate) fn address(pod: &Pod, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(pod.address(family == Family::V6), port)
}

/// An address outside of the lab; only captured connections to it succeed.
pub(crate) fn elsewhere(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => "203.0.113.7".parse().unwrap(),
        Family::V6 => "2001:db8::7".parse().unwrap(),
    };
    SocketAddr::new(ip, 8080)
}

pub(crate) fn connect(pod: &Pod, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = pod.run(|| TcpStream::connect_timeout(&to, limit)).unwrap()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

pub(crate) fn listen(pod: &Pod, family: Family, port: u16) -> TcpListener {
    pod.run(|| TcpListener::bind(address(pod, family, port))).unwrap().unwrap()
}

/// What one end says, the other hears.
pub(crate) fn says(one: &mut TcpStream, other: &mut TcpStream) {
    let mut heard = [0; 2];
    one.write_all(b"hi").unwrap();
    other.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hi");
}

pub(crate) fn refused(outcome: io::Result<TcpStream>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Dials the application as the proxy does.
pub(crate) fn dial(pod: &Pod, family: Family, from: SocketAddr, to: SocketAddr) -> io::Result<Socket> {
    let socket: Socket = pod.run(|| dial_sockets(family, 1)).unwrap().unwrap().remove(0).into();
    socket.set_nonblocking(false)?;
    socket.bind(&SockAddr::from(from))?;
    socket.connect_timeout(&SockAddr::from(to), DEADLINE)?;
    Ok(socket)
}
