//! The callers of the soak: each checks every byte that it gets, and counts what it got. A failed call is a fault's due; a wrong
//! byte never is.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::netns::{Pod, spawn_in_netns};
use weft_testkit::traffic::{Load, LoadPlan};
use weft_testkit::wait;

use super::stage::{MARKER, PATIENCE, Target};

/// Bytes that a slow reader reads at once, and the rest after each: 64 KiB/s, so that its sender is always stopped.
const SIP: usize = 4 << 10;
/// See [`SIP`].
const SIP_REST: Duration = Duration::from_millis(60);
/// What a slow reader is sent: far more than all buffers on the way hold.
const SLOW_BYTES: u64 = 256 << 20;

/// What a caller counts.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

/// A caller with a thread of its own.
struct Caller {
    name: &'static str,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// All callers.
pub(super) struct Traffic {
    loads: Vec<(&'static str, Load)>,
    callers: Vec<Caller>,
}

impl Traffic {
    /// Starts them in the client's pod.
    pub(super) fn start(client: &Pod, (far, near): (Target, Target), pool: SocketAddr, bulk: u64) -> Result<Self> {
        let load = |name, target, new_connections| -> Result<_> {
            let plan = LoadPlan { target, rate: 50, new_connections, patience: PATIENCE, text: MARKER.to_owned() };
            Ok((name, Load::start(&client.netns, plan)?))
        };
        let loads = vec![
            load("new connections, other node", far.echo, true)?,
            load("kept connections, other node", far.echo_6, false)?,
            load("new connections, same node", near.echo, true)?,
            load("kept connections, same node", near.echo_6, false)?,
            load("new connections, service with two endpoints", pool, true)?,
        ];
        let caller = |name, call: fn(SocketAddr, u64, &Counts) -> std::io::Result<()>, at, size: u64| {
            Caller::start(client, name, move |counts| call(at, size, counts))
        };
        let callers = vec![
            caller("bulk with checksum, other node", transfer, far.count, bulk << 20)?,
            caller("bulk with checksum, same node", transfer, near.count, bulk << 20)?,
            caller("slow reader, other node", sip, far.echo, SLOW_BYTES)?,
        ];
        Ok(Self { loads, callers })
    }

    /// Every caller gets on from now on.
    pub(super) fn recovers(&self, within: Duration) -> Result<()> {
        let before: Vec<u64> = self.callers.iter().map(Caller::bytes).collect();
        for (name, load) in &self.loads {
            load.wait_more(10, within).with_context(|| (*name).to_owned())?;
        }
        for (caller, before) in self.callers.iter().zip(before) {
            let more = || caller.bytes() > before + SIP as u64;
            wait::until(within, &format!("{}: bytes", caller.name), more)?;
        }
        Ok(())
    }

    /// No byte was ever wrong.
    pub(super) fn nothing_wrong(&self) -> Result<()> {
        for caller in &self.callers {
            ensure!(caller.counts.wrong.load(Ordering::Relaxed) == 0, "{}: bytes differ", caller.name);
        }
        for (name, load) in &self.loads {
            let failures = load.totals().failures;
            let wrong = failures.iter().find(|failure| failure.error.contains("differs"));
            ensure!(wrong.is_none(), "{name}: {wrong:?}");
        }
        Ok(())
    }

    /// One line for each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, load) in &self.loads {
            let totals = load.totals();
            lines.push(format!("{name}: {} answered, {} failed, worst {:?}", totals.ok, totals.failed, totals.worst));
        }
        for Caller { name, counts, .. } in &self.callers {
            let [done, failed, bytes] =
                [&counts.done, &counts.failed, &counts.bytes].map(|count| count.load(Ordering::Relaxed));
            lines.push(format!("{name}: {done} whole, {failed} broken off, {} MiB checked", bytes >> 20));
        }
        lines
    }
}

impl Caller {
    fn start(
        pod: &Pod,
        name: &'static str,
        call: impl Fn(&Counts) -> std::io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let counts = Arc::<Counts>::default();
        let inner = counts.clone();
        let thread = spawn_in_netns(&pod.netns, move || {
            while !inner.stop.load(Ordering::Relaxed) {
                match call(&inner) {
                    Ok(()) => inner.done.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::InvalidData => inner.wrong.fetch_add(1, Ordering::Relaxed),
                    Err(_) => {
                        wait::pause(Duration::from_millis(100));
                        inner.failed.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        })?;
        Ok(Self { name, counts, thread: Some(thread) })
    }

    fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A caller that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn open(at: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn wrong(words: &str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, words.to_owned())
}

/// The byte at a place of every stream: no period that a buffer's size could hide.
fn byte_at(place: u64) -> u8 {
    u8::try_from(place % 251).unwrap_or_default()
}

fn pattern() -> Vec<u8> {
    (0..251 * 256).map(byte_at).collect()
}

/// Sends `size` bytes to a server that counts and sums them, and compares its word.
fn transfer(at: SocketAddr, size: u64, counts: &Counts) -> std::io::Result<()> {
    let mut stream = open(at)?;
    let pattern = pattern();
    let (mut sent, mut sum) = (0, 0);
    while sent < size {
        if counts.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let length = usize::try_from(size - sent).map_or(pattern.len(), |left| left.min(pattern.len()));
        stream.write_all(&pattern[..length])?;
        sum += pattern[..length].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        sent += length as u64;
        counts.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    stream.shutdown(Shutdown::Write)?;
    let mut words = String::new();
    stream.read_to_string(&mut words)?;
    if words == format!("{size} {sum}") { Ok(()) } else { Err(wrong("the server counted something else")) }
}

/// One connection to an echo that carries `size` bytes there and back, as fast as it goes, every byte checked.
pub(super) fn there_and_back(pod: &Pod, at: SocketAddr, size: u64) -> Result<()> {
    let counts = Counts::default();
    Ok(pod.run(|| echo_at_pace(at, size, (64 << 10, Duration::ZERO), &counts))??)
}

/// Sends to an echo, and reads the answer in sips.
fn sip(at: SocketAddr, size: u64, counts: &Counts) -> std::io::Result<()> {
    echo_at_pace(at, size, (SIP, SIP_REST), counts)
}

fn echo_at_pace(at: SocketAddr, size: u64, pace: (usize, Duration), counts: &Counts) -> std::io::Result<()> {
    let mut stream = open(at)?;
    let writer = stream.try_clone()?;
    let (ended, limit) = (Arc::new(AtomicBool::new(false)), size);
    let end = ended.clone();
    let sender = std::thread::spawn(move || {
        let (pattern, mut sent) = (pattern(), 0);
        // Stopped by the reader's pace, it times out now and then and goes on where it stood.
        while sent < limit && !end.load(Ordering::Relaxed) {
            let place = usize::try_from(sent % pattern.len() as u64).unwrap_or_default();
            match (&writer).write(&pattern[place..]) {
                Ok(0) => return,
                Ok(count) => sent += count as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    });
    let read = read_all(&mut stream, size, pace, counts);
    ended.store(true, Ordering::Relaxed);
    // Wakes the sender if it waits.
    let _ = stream.shutdown(Shutdown::Both);
    let _ = sender.join();
    read
}

fn read_all(stream: &mut TcpStream, size: u64, (sip, rest): (usize, Duration), counts: &Counts) -> std::io::Result<()> {
    let (mut buffer, mut place) = (vec![0; sip], 0);
    while place < size && !counts.stop.load(Ordering::Relaxed) {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for byte in &buffer[..count] {
            if *byte != byte_at(place) {
                return Err(wrong("the echo differs"));
            }
            place += 1;
        }
        counts.bytes.fetch_add(count as u64, Ordering::Relaxed);
        if !rest.is_zero() {
            wait::pause(rest);
        }
    }
    Ok(())
}
