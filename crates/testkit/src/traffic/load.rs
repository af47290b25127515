//! Open-loop load: so many requests a second whatever the answers do, every one checked, every failure remembered.
//!
//! Open-loop, because a client that waits for a slow answer sends less and hides exactly the pause that it met.

use std::io::{Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::netns::spawn_in_netns;
use crate::wait;

/// Failures that are kept in words; all are counted.
const KEPT: usize = 20;
/// Requests in flight; beyond it a request counts as failed instead of piling up threads.
const IN_FLIGHT: u64 = 1024;

/// What to ask, how often.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// An echo server.
    pub target: SocketAddr,
    /// Requests per second.
    pub rate: u32,
    /// True: each request on a connection of its own. False: one connection per 10 requests/s, kept open; a request
    /// that finds its connection broken fails and opens a new one.
    pub new_connections: bool,
    /// A request without an answer after this has failed.
    pub patience: Duration,
    /// Sent and expected back; put a marker into it.
    pub text: String,
}

/// One failed request.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Since the start of the load.
    pub at: Duration,
    /// What the system said, with errno.
    pub error: String,
}

/// What happened up to now.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests begun.
    pub sent: u64,
    /// Answered rightly.
    pub ok: u64,
    /// Failed, late or wrong.
    pub failed: u64,
    /// Longest time of a request that was answered.
    pub worst: Duration,
    /// The first 20 failures.
    pub failures: Vec<Failure>,
}

impl Totals {
    /// Nothing failed, and something was asked.
    ///
    /// # Errors
    /// Says how many failed, and the first ones with time and errno.
    pub fn assert_clean(&self) -> Result<()> {
        if self.failed > 0 || self.ok == 0 {
            let lines: Vec<String> =
                self.failures.iter().map(|failure| format!("  {:?}: {}", failure.at, failure.error)).collect();
            bail!("{} of {} requests failed, {} ok:\n{}", self.failed, self.sent, self.ok, lines.join("\n"));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Shared {
    plan: LoadPlan,
    start: Instant,
    totals: Mutex<Totals>,
    in_flight: AtomicU64,
    stop: AtomicBool,
}

/// A running load; stops when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts it inside `netns`.
    ///
    /// # Errors
    /// No such namespace.
    pub fn start(netns: &str, plan: LoadPlan) -> Result<Self> {
        let shared = Arc::new(Shared {
            plan,
            start: Instant::now(),
            totals: Mutex::default(),
            in_flight: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        // Threads started from there are in the namespace as well.
        let thread =
            spawn_in_netns(netns, move || if inner.plan.new_connections { singles(&inner) } else { keepers(&inner) })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Time since the start: the clock of [`Failure::at`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// What happened up to now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals.lock().expect("no panic while held").clone()
    }

    /// Waits until `count` more requests have been answered than now: "and traffic goes on".
    ///
    /// # Errors
    /// Fewer at the deadline; the first failures are shown.
    pub fn wait_more(&self, count: u64, deadline: Duration) -> Result<()> {
        let goal = self.totals().ok + count;
        wait::eventually(deadline, &format!("{count} more answers"), || {
            let totals = self.totals();
            if totals.ok >= goal { Ok(()) } else { Err(format!("{totals:?}")) }
        })
    }

    /// Stops asking, waits for the requests in flight, gives the totals.
    #[must_use]
    pub fn stop(mut self) -> Totals {
        self.end();
        self.totals()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn running(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// Counts a request as begun; runs it; counts how it ended.
    fn ask(&self, request: impl FnOnce() -> std::io::Result<()>) -> bool {
        let begun = Instant::now();
        self.totals.lock().expect("no panic while held").sent += 1;
        let result = request();
        let took = begun.elapsed();
        let mut totals = self.totals.lock().expect("no panic while held");
        match result {
            Ok(()) => {
                totals.ok += 1;
                totals.worst = totals.worst.max(took);
                true
            }
            Err(error) => {
                totals.failed += 1;
                if totals.failures.len() < KEPT {
                    let at = begun.duration_since(self.start);
                    totals.failures.push(Failure { at, error: format!("{error} after {took:?}") });
                }
                false
            }
        }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.plan.target, self.plan.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.plan.patience))?;
        stream.set_write_timeout(Some(self.plan.patience))?;
        Ok(stream)
    }

    fn exchange(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.write_all(self.plan.text.as_bytes())?;
        let mut answer = vec![0; self.plan.text.len()];
        stream.read_exact(&mut answer)?;
        if answer == self.plan.text.as_bytes() { Ok(()) } else { Err(Error::other("another answer than was sent")) }
    }
}

/// Rests until request `number` is due.
fn pace(shared: &Shared, number: u64, rate: f64) {
    let due = shared.start + Duration::from_secs_f64(number as f64 / rate);
    wait::pause(due.saturating_duration_since(Instant::now()));
}

fn singles(shared: &Arc<Shared>) {
    let mut number = 0;
    while shared.running() {
        pace(shared, number, f64::from(shared.plan.rate));
        number += 1;
        let inner = Arc::clone(shared);
        if shared.in_flight.fetch_add(1, Ordering::AcqRel) >= IN_FLIGHT {
            shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            shared.ask(|| Err(Error::other("too many requests in flight")));
            continue;
        }
        thread::spawn(move || {
            inner.ask(|| inner.connect().and_then(|stream| inner.exchange(&stream)));
            inner.in_flight.fetch_sub(1, Ordering::AcqRel);
        });
    }
    let _ = wait::until(shared.plan.patience * 2, "the last answers", || shared.in_flight.load(Ordering::Acquire) == 0);
}

fn keepers(shared: &Arc<Shared>) {
    let count = shared.plan.rate.div_ceil(10).max(1);
    let rate = f64::from(shared.plan.rate) / f64::from(count);
    let keepers: Vec<JoinHandle<()>> = (0..count)
        .map(|_| {
            let shared = Arc::clone(shared);
            thread::spawn(move || keeper(&shared, rate))
        })
        .collect();
    for keeper in keepers {
        let _ = keeper.join();
    }
}

fn keeper(shared: &Shared, rate: f64) {
    let (mut number, mut kept) = (0, None);
    while shared.running() {
        pace(shared, number, rate);
        number += 1;
        let mut stream = kept.take();
        let asked = shared.ask(|| {
            let open = match stream.take() {
                Some(open) => open,
                None => shared.connect()?,
            };
            shared.exchange(stream.insert(open))
        });
        kept = stream.filter(|_| asked);
    }
}
