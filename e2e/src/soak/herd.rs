//! Many connections of one pod, in a process of their own: with both ends in one process, 10,000 of them need more descriptors
//! than many machines allow. The parent asks with a line, the child answers with one.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;
use weft_testkit::netns::Pod;

use super::flags::{HerdKind, SoakFlags};
use crate::bench::load::{Exchange, hold};

/// All answers to one question to all connections must be there by then.
const ANSWERED: Duration = Duration::from_secs(30);
/// Threads that open connections in a burst: far more than this machine has processors.
const OPENERS: usize = 16;
/// An attempt of a burst that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ports of a burst: those of [`crate::bench::load`] that keep connections open, since the agent of the server has some 4,500
/// source ports for each.
const PORTS: [u16; 4] = crate::bench::load::server::HELD;

/// The parent's handle.
pub(super) struct Herd {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Herd {
    /// Starts one in a pod.
    pub(super) fn start(pod: &Pod, address: IpAddr, kind: HerdKind, (count, keep): (usize, usize)) -> Result<Self> {
        let mut command = pod.command(std::env::current_exe()?);
        let [count, keep] = [count, keep].map(|number| number.to_string());
        let kind = match kind {
            HerdKind::Hold => "hold",
            HerdKind::Burst => "burst",
        };
        command.args(["--herd", kind, "--herd-at", &address.to_string(), "--herd-count", &count, "--herd-keep", &keep]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("standard output was piped")?);
        Ok(Self { child, lines })
    }

    /// What it says next: of two numbers, the second in seconds.
    pub(super) fn answer(&mut self) -> Result<(usize, f64)> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        let (count, seconds) = line.trim().split_once(' ').with_context(|| format!("a herd said '{line}'"))?;
        Ok((count.parse()?, seconds.parse()?))
    }

    /// Asks on every connection at once; how many were answered, and when the last one was.
    pub(super) fn ask(&mut self) -> Result<(usize, f64)> {
        self.child.stdin.as_mut().context("standard input was piped")?.write_all(b"ask\n")?;
        self.answer()
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Raises the limit of open files of this process, and of its children.
pub(super) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What is missing shows where it is needed.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The child: until its standard input ends.
pub(super) fn be(flags: &SoakFlags, kind: HerdKind) -> Result<()> {
    raise_open_files();
    let address = flags.herd_at.context("--herd-at")?;
    match kind {
        HerdKind::Hold => be_held(address, flags.herd_count),
        HerdKind::Burst => be_burst(address, flags.herd_count, flags.herd_keep),
    }
}

fn say(count: usize, took: Duration) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{count} {:.6}", took.as_secs_f64())?;
    Ok(out.flush()?)
}

fn be_held(address: IpAddr, count: usize) -> Result<()> {
    let held = hold(address, count)?;
    let mut asker = Asker::new(held.streams)?;
    say(count, held.took)?;
    for line in std::io::stdin().lines() {
        line?;
        let begin = Instant::now();
        let answered = asker.ask()?;
        say(answered, begin.elapsed())?;
    }
    Ok(())
}

struct Asker {
    poll: Poll,
    exchange: Exchange,
    /// With the bytes of its answer that have not come.
    connections: Vec<(TcpStream, usize)>,
}

impl Asker {
    fn new(streams: Vec<std::net::TcpStream>) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(streams.len());
        for (place, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
            connections.push((stream, 0));
        }
        Ok(Self { poll, exchange: Exchange::kept(), connections })
    }

    /// Asks on all, then reads until all have answered or it has taken too long.
    fn ask(&mut self) -> Result<usize> {
        let end = Instant::now() + ANSWERED;
        for (stream, missing) in &mut self.connections {
            stream.write_all(&self.exchange.request)?;
            *missing = self.exchange.answer;
        }
        let (mut events, mut scratch, mut answered) = (Events::with_capacity(1024), vec![0; 16 << 10], 0);
        while answered < self.connections.len() && Instant::now() < end {
            self.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                let (stream, missing) = &mut self.connections[event.token().0];
                // A short read has emptied the socket; what comes later is a new event (edge-triggered).
                match stream.read(&mut scratch) {
                    Ok(length) if length > 0 && length <= *missing => {
                        *missing -= length;
                        answered += usize::from(*missing == 0);
                    }
                    Ok(length) => anyhow::bail!("{length} bytes, {missing} were to come"),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(answered)
    }
}

/// Opens `count` connections as fast as its threads can, each asked once; keeps those that were answered, the last `keep` of them.
/// Says how many were answered.
fn be_burst(address: IpAddr, count: usize, keep: usize) -> Result<()> {
    let begin = Instant::now();
    let held: Vec<(usize, VecDeque<std::net::TcpStream>)> = std::thread::scope(|scope| {
        let burst = |opener: usize| {
            let (mut answered, mut held) = (0, VecDeque::new());
            for number in (opener..count).step_by(OPENERS) {
                let port = PORTS[number / OPENERS % PORTS.len()];
                if let Ok(stream) = one(SocketAddr::new(address, port)) {
                    answered += 1;
                    held.push_back(stream);
                }
                if held.len() > keep / OPENERS {
                    held.pop_front();
                }
            }
            (answered, held)
        };
        let openers: Vec<_> = (0..OPENERS).map(|opener| scope.spawn(move || burst(opener))).collect();
        openers.into_iter().map(|opener| opener.join().expect("an opener does not panic")).collect()
    });
    let answered = held.iter().map(|(answered, _)| answered).sum();
    ensure!(answered <= count, "more answers than questions");
    say(answered, begin.elapsed())?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// One connection, asked once. It ends with RST, so that no port waits for its last packets.
fn one(at: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let exchange = Exchange::kept();
    let mut stream = std::net::TcpStream::connect_timeout(&at, PATIENCE)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&exchange.request)?;
    stream.read_exact(&mut vec![0; exchange.answer])?;
    Ok(stream)
}
