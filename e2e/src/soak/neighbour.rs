//! How much a pod suffers from a neighbour that opens connections without end: the p99 of its requests beside a flood that goes
//! through the mesh, against the same beside a flood past the mesh. (Against no flood at all it would measure the machine:
//! whoever floods takes processors from everybody.)

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_testkit::netns::{Pod, spawn_in_netns};

use super::stage::{PATIENCE, Stage};

/// Requests of one measurement.
const REQUESTS: usize = 2_000;
/// Threads that flood: more than this machine has processors.
const FLOODERS: usize = 4;
/// Connections that each of them holds; the oldest goes when another one comes.
const HELD: usize = 500;
/// Measurements of each kind, interleaved; the medians are compared.
const ROUNDS: usize = 3;
/// How much worse the flood through the mesh may be for the neighbour. Debug builds are only measured: there the agents' own work
/// is ten times what it is, and the processors are what everybody waits for.
const BOUND: f64 = if cfg!(debug_assertions) { f64::INFINITY } else { 2.0 };

/// Measures, and says it in words.
pub(super) fn suffers_little(stage: &Stage) -> Result<String> {
    let (mut alone, mut past, mut through) = (Vec::new(), Vec::new(), Vec::new());
    let mut opened = [0, 0];
    for _ in 0..ROUNDS {
        alone.push(p99(stage)?);
        let flood = Flood::start(&stage.stranger, stage.outside)?;
        past.push(p99(stage)?);
        opened[0] += flood.end();
        let flood = Flood::start(&stage.client, stage.far.echo)?;
        through.push(p99(stage)?);
        opened[1] += flood.end();
    }
    let [alone, past, through] = [alone, past, through].map(median);
    let ratio = through.as_secs_f64() / past.as_secs_f64();
    let text = format!(
        "neighbour's p99: alone {alone:.1?}; beside {} connections past the mesh {past:.1?}, beside {} through it {through:.1?} \
         ({ratio:.2} times)",
        opened[0], opened[1]
    );
    ensure!(ratio <= BOUND, "more than {BOUND}: {text}");
    Ok(text)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Of one request after the other on one connection of the neighbour.
fn p99(stage: &Stage) -> Result<Duration> {
    let to = stage.far.echo;
    let mut times = stage.neighbour.run(|| -> std::io::Result<Vec<Duration>> {
        let mut stream = connect(to)?;
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let begin = Instant::now();
            ask(&mut stream)?;
            times.push(begin.elapsed());
        }
        Ok(times)
    })??;
    times.sort_unstable();
    Ok(times[REQUESTS * 99 / 100])
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

/// Opens connections as fast as it can, until it is told to end.
struct Flood {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(pod: &Pod, to: SocketAddr) -> Result<Self> {
        let (stop, opened) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let flooder = || {
            let (stop, opened) = (stop.clone(), opened.clone());
            spawn_in_netns(&pod.netns, move || {
                let mut held = std::collections::VecDeque::new();
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
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        self.opened.load(Ordering::Relaxed)
    }
}
