//! What a pod feels of its neighbour's abuse: how long its requests take, and the ways to abuse.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use weft_testkit::netns::{Pod, spawn_in_netns};

use super::stage::PATIENCE;

/// Threads that flood: more than this machine has processors.
const FLOODERS: usize = 4;
/// Connections that each of them holds; the oldest goes when another one comes.
const HELD: usize = 500;

/// How long one request after the other took, on one connection of the pod to an echo, until `enough` of that many.
pub(super) fn times(pod: &Pod, to: SocketAddr, enough: impl Fn(usize) -> bool + Send + Sync) -> Result<Vec<Duration>> {
    Ok(pod.run(|| -> std::io::Result<Vec<Duration>> {
        let mut stream = connect(to)?;
        let mut times = Vec::new();
        while !enough(times.len()) {
            let begin = Instant::now();
            ask(&mut stream)?;
            times.push(begin.elapsed());
        }
        Ok(times)
    })??)
}

/// Of some times; zero of none.
pub(super) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// The middle one; zero of none.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub(super) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

/// Opens connections as fast as it can, until it is told to end.
pub(super) struct Flood {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    pub(super) fn start(pod: &Pod, to: SocketAddr) -> Result<Self> {
        let (stop, opened) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let flooder = || {
            let (stop, opened) = (stop.clone(), opened.clone());
            spawn_in_netns(&pod.netns, move || {
                let mut held = VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    let answered = connect(to).and_then(|mut stream| ask(&mut stream).map(|()| stream));
                    if let Ok(stream) = answered {
                        opened.fetch_add(1, Ordering::Relaxed);
                        held.push_back(stream);
                    }
                    if held.len() > HELD {
                        held.pop_front();
                    }
                }
            })
        };
        let threads = (0..FLOODERS).map(|_| flooder()).collect::<Result<_>>()?;
        Ok(Self { stop, opened, threads })
    }

    /// How many it opened.
    pub(super) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        self.opened.load(Ordering::Relaxed)
    }
}

/// Connections to an echo that are filled until nothing more goes in, and never read: none of their bytes gets on.
pub(super) fn stuffed(pod: &Pod, to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    /// With all buffers on the way full, a write waits for ever.
    const STALLED: Duration = Duration::from_millis(50);
    let stuff = || -> std::io::Result<TcpStream> {
        let mut stream = connect(to)?;
        ask(&mut stream)?;
        stream.set_write_timeout(Some(STALLED))?;
        while stream.write(&[0x5a; 64 << 10]).is_ok() {}
        Ok(stream)
    };
    Ok(pod.run(|| (0..count).map(|_| stuff()).collect::<std::io::Result<_>>())??)
}
