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

use tokio::time::{Instant, Sleep, sleep};

use crate::http2::Connection;
use crate::settings::KeepaliveSettings;

/// The PING loop of one connection; polled by whoever drives the connection.
pub(crate) struct Keepalive {
    settings: KeepaliveSettings,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Keepalive {
    pub(crate) fn new(settings: KeepaliveSettings) -> Self {
        Self { settings, timer: Box::pin(sleep(settings.interval)), waiting: false }
    }

    /// Ready when the peer counts as dead.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Poll<()> {
        loop {
            if self.waiting && connection.has_ponged() {
                connection.refill_limits();
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.settings.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.waiting {
                return Poll::Ready(());
            }
            connection.send_ping();
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.settings.timeout);
        }
    }
}
