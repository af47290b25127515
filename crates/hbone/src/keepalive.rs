//! PING: notices a peer that vanished without a FIN (its pod's namespace is gone, a cable is cut).
//!
//! ```text
//!            interval over: send PING            no answer within `timeout`
//!   Resting ---------------------------> Waiting ---------------------------> dead
//!      ^---------------------------------'  PONG
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// When a connection is probed and when it counts as dead.
#[derive(Debug, Clone, Copy)]
pub struct KeepaliveSettings {
    /// Rest between an answer and the next PING. 10 s (`ambient-wire.md` section 2.3), even while data flows.
    pub interval: Duration,
    /// How long an answer may take. 20 s (same place).
    pub timeout: Duration,
}

impl Default for KeepaliveSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(20) }
    }
}

/// The PING loop of one connection; polled by whoever drives the connection.
pub(crate) struct Keepalive {
    pings: h2::PingPong,
    settings: KeepaliveSettings,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Keepalive {
    pub(crate) fn new(pings: h2::PingPong, settings: KeepaliveSettings) -> Self {
        Self { pings, settings, timer: Box::pin(sleep(settings.interval)), waiting: false }
    }

    /// Ready when the peer counts as dead. An error of the connection itself shows when the connection is polled, not here.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting {
                match self.pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => self.rest(),
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => return self.timer.as_mut().poll(cx),
                }
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.pings.send_ping(h2::Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.settings.timeout);
        }
    }

    fn rest(&mut self) {
        self.waiting = false;
        self.timer.as_mut().reset(Instant::now() + self.settings.interval);
    }
}
