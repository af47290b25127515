//! A TCP server with one chosen behaviour, a thread per connection, and a memory of how each connection ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::in_netns;
use crate::wait;

/// Backlog: more than any load of the tests opens at once.
const BACKLOG: i32 = 1024;

/// What the server does with a connection.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Sends back what it reads, and its end after the client's.
    Echo,
    /// Speaks first (as SMTP or MySQL do), then echoes.
    Greet(String),
    /// Answers at once with the client's address as it sees it, and ends.
    PeerAddress,
    /// Reads to the client's end, then answers with the number of bytes and their sum, and ends: `BYTES SUM`.
    Count,
    /// Resets (RST) after the first byte.
    Reset,
    /// Ends orderly (FIN) after the first byte, without an answer.
    Close,
    /// Reads and never answers.
    Silent,
}

/// How a connection ended, seen from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client ended its direction orderly.
    Fin,
    /// The client, or something between, reset.
    Reset,
    /// The server itself ended it, as its behaviour says.
    Ours,
    /// Another error.
    Error(String),
}

/// One finished connection.
#[derive(Clone, Debug)]
pub struct Record {
    /// The client as the server sees it.
    pub peer: SocketAddr,
    /// Bytes read.
    pub bytes: u64,
    /// How it ended.
    pub ending: Ending,
}

#[derive(Debug, Default)]
struct Memory {
    accepted: u64,
    open: Vec<TcpStream>,
    finished: Vec<Record>,
}

/// A running server; stops, and resets what is open, when dropped.
#[derive(Debug)]
pub struct Server {
    listener: Arc<Socket>,
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
}

impl Server {
    /// Listens on `address` inside `netns` (with SO_REUSEADDR; `[::]` takes both families).
    ///
    /// # Errors
    /// The address is taken or not there.
    pub fn start(netns: &str, address: SocketAddr, behaviour: Behaviour) -> Result<Self> {
        let listener =
            in_netns(netns, || listen(address))?.with_context(|| format!("listen on {address} in {netns}"))?;
        let address = listener.local_addr()?.as_socket().context("an IP socket")?;
        let (listener, memory) = (Arc::new(listener), Arc::new(Mutex::new(Memory::default())));
        let (inner, known) = (Arc::clone(&listener), Arc::clone(&memory));
        thread::Builder::new().name(format!("server {address}")).spawn(move || accept(&inner, &behaviour, &known))?;
        Ok(Self { listener, address, memory })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted up to now.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.memory.lock().expect("no panic while held").accepted
    }

    /// Connections that have ended, in the order of their end.
    #[must_use]
    pub fn finished(&self) -> Vec<Record> {
        self.memory.lock().expect("no panic while held").finished.clone()
    }

    /// Waits until `count` connections have ended.
    ///
    /// # Errors
    /// Fewer at the deadline.
    pub fn wait_finished(&self, count: usize, deadline: Duration) -> Result<Vec<Record>> {
        wait::eventually(deadline, &format!("{count} ended connections at {}", self.address), || {
            let finished = self.finished();
            if finished.len() >= count { Ok(finished) } else { Err(format!("{} have", finished.len())) }
        })
    }

    /// Resets every open connection.
    pub fn reset_all(&self) {
        for stream in self.memory.lock().expect("no panic while held").open.drain(..) {
            abort(&stream);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // On Linux this wakes the accept with EINVAL; the address is free when the accept thread drops its handle.
        let _ = self.listener.shutdown(Shutdown::Both);
        self.reset_all();
    }
}

/// Ends a connection with RST at once, also while other handles of it are open and threads wait on it: connecting to
/// "nothing" (AF_UNSPEC) disconnects (tcp_disconnect in the kernel).
pub(crate) fn abort(stream: &TcpStream) {
    let _ = rustix::net::connect_unspec(stream);
}

fn listen(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn accept(listener: &Socket, behaviour: &Behaviour, memory: &Arc<Mutex<Memory>>) {
    while let Ok((socket, from)) = listener.accept() {
        let (Some(peer), stream) = (from.as_socket(), TcpStream::from(socket)) else { continue };
        let (behaviour, memory) = (behaviour.clone(), Arc::clone(memory));
        {
            let mut memory = memory.lock().expect("no panic while held");
            memory.accepted += 1;
            memory.open.extend(stream.try_clone());
        }
        let _ = thread::Builder::new().name(format!("serve {peer}")).spawn(move || {
            let mut bytes = 0;
            let result = serve(&stream, peer, &behaviour, &mut bytes);
            let ending = match result {
                Ok(ending) => ending,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    Ending::Reset
                }
                Err(error) => Ending::Error(error.to_string()),
            };
            let mut memory = memory.lock().expect("no panic while held");
            memory.open.retain(|open| open.peer_addr().is_ok_and(|other| other != peer));
            memory.finished.push(Record { peer, bytes, ending });
        });
    }
}

fn serve(mut stream: &TcpStream, peer: SocketAddr, behaviour: &Behaviour, bytes: &mut u64) -> std::io::Result<Ending> {
    let mut buffer = [0; 16_384];
    match behaviour {
        Behaviour::PeerAddress => {
            stream.write_all(peer.to_string().as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
        }
        Behaviour::Greet(words) => stream.write_all(words.as_bytes())?,
        _ => {}
    }
    let mut sum = 0_u64;
    loop {
        let length = stream.read(&mut buffer)?;
        *bytes += length as u64;
        if length == 0 {
            break;
        }
        match behaviour {
            Behaviour::Echo | Behaviour::Greet(_) => stream.write_all(&buffer[..length])?,
            Behaviour::Count => sum += buffer[..length].iter().map(|byte| u64::from(*byte)).sum::<u64>(),
            Behaviour::Reset => {
                abort(stream);
                return Ok(Ending::Ours);
            }
            Behaviour::Close => {
                stream.shutdown(Shutdown::Write)?;
                return Ok(Ending::Ours);
            }
            Behaviour::PeerAddress | Behaviour::Silent => {}
        }
    }
    if matches!(behaviour, Behaviour::Count) {
        write!(stream, "{bytes} {sum}")?;
    }
    // This behaviour has ended its own direction before.
    if !matches!(behaviour, Behaviour::PeerAddress) {
        stream.shutdown(Shutdown::Write)?;
    }
    Ok(Ending::Fin)
}
