//! Captures the frames of one interface on a thread: AF_PACKET needs CAP_NET_RAW in the namespace, which root of a
//! user namespace has.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use super::ledger::{Ledger, Report};
use crate::netns::in_netns;
use crate::wait;

/// Kernel queue, bytes: at 1 Gbit/s it holds 250 ms, far longer than this thread waits for a processor.
const QUEUE: usize = 32 << 20;
/// Longest frame: a segmentation-offload frame of 64 KiB and its headers.
const FRAME: usize = 66_000;
/// How long one read waits before the thread looks whether it shall end, ms.
const TICK: i64 = 10;
/// How long a report waits for frames that are still in the kernel's queue.
const SETTLE: Duration = Duration::from_secs(2);

/// A running capture; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    ledger: Arc<Mutex<Ledger>>,
    idle: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Captures `interface` of namespace `netns` in both directions, and looks for `markers` in payloads.
    ///
    /// # Errors
    /// No such interface; no right to open a packet socket there.
    pub fn start(netns: &str, interface: &str, markers: &[&str]) -> Result<Self> {
        let (descriptor, index) = in_netns(netns, || open(interface))??;
        let ledger = Arc::new(Mutex::new(Ledger::new(markers)));
        let (idle, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (ledger, idle, stop) = (Arc::clone(&ledger), Arc::clone(&idle), Arc::clone(&stop));
            let name = format!("capture {interface}");
            std::thread::Builder::new().name(name).spawn(move || read(&descriptor, index, &ledger, (&idle, &stop)))?
        };
        Ok(Self { ledger, idle, stop, thread: Some(thread) })
    }

    /// What was seen up to now, frames in the kernel's queue included.
    #[must_use]
    pub fn report(&self) -> Report {
        self.settle();
        self.ledger.lock().expect("the capture thread does not panic").report()
    }

    /// Starts counting anew (see [`Ledger::forget`]).
    pub fn forget(&self) {
        self.settle();
        self.ledger.lock().expect("the capture thread does not panic").forget();
    }

    /// Waits until the queue has been empty once; under endless load up to 2 s, which empties what was there before.
    fn settle(&self) {
        let before = self.idle.load(Ordering::Acquire);
        let _ = wait::until(SETTLE, "an empty queue", || self.idle.load(Ordering::Acquire) > before);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(interface: &str) -> Result<(OwnedFd, usize)> {
    let index = if_nametoindex(interface).with_context(|| format!("interface {interface}"))?;
    let descriptor = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::EthAll))
        .context("packet socket")?;
    // Beyond the system's limit only real root may go; an ordinary user takes what the limit gives.
    if setsockopt(&descriptor, RcvBufForce, &QUEUE).is_err() {
        setsockopt(&descriptor, RcvBuf, &QUEUE)?;
    }
    setsockopt(&descriptor, ReceiveTimeout, &TimeVal::milliseconds(TICK))?;
    Ok((descriptor, usize::try_from(index)?))
}

fn read(descriptor: &OwnedFd, index: usize, ledger: &Mutex<Ledger>, (idle, stop): (&AtomicU64, &AtomicBool)) {
    let mut buffer = vec![0; FRAME];
    while !stop.load(Ordering::Acquire) {
        // The socket hears every interface of its namespace (binding it would need an unsafe address): pick ours.
        match recvfrom::<LinkAddr>(descriptor.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.ifindex() == index => {
                ledger.lock().expect("a report does not panic").frame(&buffer[..length]);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                idle.fetch_add(1, Ordering::Release);
            }
            // The interface went down: its frames have ended, others may follow when it comes up again.
            Err(Errno::ENETDOWN) => {}
            Err(_) => return,
        }
    }
}
