//! The far end of all loads, in a pod: two event loops for requests and messages, a thread per stream for bulk.
//!
//! Each loop has listeners of its own (SO_REUSEPORT), as any server with several workers.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use weft_testkit::netns::in_netns;

use super::seen::Seen;
use super::wire::{answer_bytes, replies};
use super::{bulk, http};

/// Port of requests.
pub const REQUESTS: u16 = 8080;
/// Port of echoed messages.
pub const ECHO: u16 = 7007;
/// Port that swallows bytes (`bulk`).
pub const SINK: u16 = 9009;
/// Port of a real HTTP server (`http`).
pub const HTTP: u16 = 8090;
/// More ports of requests, for connections that are held open: an agent that keeps its client's address has some 4,500 source
/// ports for each destination port.
pub const HELD: [u16; 4] = [8081, 8082, 8083, 8084];
/// Event loops.
const LOOPS: usize = 2;
/// More than any load opens at once.
const BACKLOG: i32 = 4096;
/// Bytes read at once from a request's connection.
const SCRATCH: usize = 16 << 10;
/// Tokens below this are listeners.
const FIRST_CONNECTION: usize = 16;

/// A running server; its threads end with it.
#[derive(Debug)]
pub struct Server {
    seen: Arc<Seen>,
    wakers: Vec<mio::Waker>,
    http: Socket,
    sink: Socket,
}

impl Server {
    /// Starts it on every address of a pod. Bulk is read in pieces of `piece` bytes.
    ///
    /// # Errors
    /// A port is taken, or the namespace is gone.
    pub fn start(netns: &str, piece: usize) -> Result<Self> {
        let seen = Arc::new(Seen::default());
        let mut wakers = Vec::new();
        for _ in 0..LOOPS {
            let poll = Poll::new()?;
            let listeners = in_netns(netns, || listeners(&poll))??;
            wakers.push(mio::Waker::new(poll.registry(), Token(FIRST_CONNECTION - 1))?);
            let seen = Arc::clone(&seen);
            thread::Builder::new().name("bench-serve".into()).spawn(move || serve(poll, &listeners, &seen))?;
        }
        let http = in_netns(netns, || listen(HTTP))??;
        let (accepting, inner) = (http.try_clone()?, Arc::clone(&seen));
        let serve = move || http::serve(&accepting, LOOPS, &inner);
        thread::Builder::new().name("bench-accept".into()).spawn(serve)?;
        let sink = in_netns(netns, || listen(SINK))??;
        let (accepting, inner) = (sink.try_clone()?, Arc::clone(&seen));
        let swallow = move || bulk::swallow(&accepting, piece, &inner);
        thread::Builder::new().name("bench-accept".into()).spawn(swallow)?;
        Ok(Self { seen, wakers, http, sink })
    }

    /// Bytes that the sink has swallowed.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.seen.open.load(Ordering::Relaxed)
    }

    /// Connections accepted up to now.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.seen.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Release);
        for waker in &self.wakers {
            let _ = waker.wake();
        }
        for listener in [&self.http, &self.sink] {
            let _ = listener.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn listen(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?; // inherited by what is accepted
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    socket.bind(&address.into()).with_context(|| format!("port {port}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn listeners(poll: &Poll) -> Result<Vec<(TcpListener, bool)>> {
    let ports = [REQUESTS, ECHO].into_iter().chain(HELD);
    let mut listeners = Vec::new();
    for (index, port) in ports.enumerate() {
        let socket = listen(port)?;
        socket.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, Token(index), Interest::READABLE)?;
        listeners.push((listener, port == ECHO));
    }
    Ok(listeners)
}

struct Connection {
    stream: TcpStream,
    echo: bool,
    /// The beginning of a request whose end has not come.
    rest: Vec<u8>,
}

fn serve(mut poll: Poll, listeners: &[(TcpListener, bool)], seen: &Seen) {
    let mut events = Events::with_capacity(256);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut scratch = vec![0; SCRATCH];
    while !seen.over.load(Ordering::Acquire) {
        if poll.poll(&mut events, None).is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
            return;
        }
        for event in &events {
            let token = event.token().0;
            if let Some((listener, echo)) = listeners.get(token) {
                while let Ok((mut stream, _)) = listener.accept() {
                    let place = free.pop().unwrap_or(connections.len());
                    let token = Token(FIRST_CONNECTION + place);
                    if poll.registry().register(&mut stream, token, Interest::READABLE).is_err() {
                        free.push(place);
                        continue;
                    }
                    if place == connections.len() {
                        connections.push(None);
                    }
                    connections[place] = Some(Connection { stream, echo: *echo, rest: Vec::new() });
                    seen.open.fetch_add(1, Ordering::Relaxed);
                    seen.accepted.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            let Some(place) = token.checked_sub(FIRST_CONNECTION) else { continue };
            let Some(connection) = connections.get_mut(place).and_then(Option::as_mut) else { continue };
            if !go_on(connection, &mut scratch) {
                connections[place] = None;
                free.push(place);
                seen.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Reads what is there and answers; false when the connection is over.
fn go_on(connection: &mut Connection, scratch: &mut [u8]) -> bool {
    loop {
        let length = match connection.stream.read(scratch) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        let said = if connection.echo {
            say(&mut connection.stream, &scratch[..length])
        } else {
            answer(connection, &scratch[..length])
        };
        if !said {
            return false;
        }
        // A short read has emptied the socket; what comes later is a new event (edge-triggered).
        if length < scratch.len() {
            return true;
        }
    }
}

fn answer(connection: &mut Connection, read: &[u8]) -> bool {
    let joined;
    let read = if connection.rest.is_empty() {
        read
    } else {
        joined = [&connection.rest, read].concat();
        &joined
    };
    let found = replies(read);
    connection.rest = if found.taken == read.len() { Vec::new() } else { read[found.taken..].to_vec() };
    let said = (0..found.kept).all(|_| say(&mut connection.stream, answer_bytes(false)));
    if found.last {
        say(&mut connection.stream, answer_bytes(true));
    }
    said && !found.last
}

/// Answers are smaller than a send buffer, and each waits for its request: a short write is a broken connection.
fn say(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write(bytes).is_ok_and(|written| written == bytes.len())
}
