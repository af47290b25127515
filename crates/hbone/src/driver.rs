//! Moves the bytes between a transport and a connection's core: the one future of each connection, either end.
//!
//! ```text
//! Running --finished, over, or the transport ended--> Flushing --all sent--> Shutting --closed--> Lingering --peer closed--> done
//!                                                         '-------- all of this within FAREWELL, else done at once ---------^
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Sleep, sleep};

use crate::error::{ConnectionEnd, ResetCode, StreamError};
use crate::http2::{Connection, Role};
use crate::keepalive::Keepalive;
use crate::settings::ConnectionSettings;

/// A connection's core as its driver and its streams share it. All of them are on one thread, and none holds the borrow over an await.
pub(crate) type Shared = Rc<RefCell<Connection>>;

/// Bytes that one poll takes from the transport before other tasks get their turn. 1 MiB: about 0.3 ms.
const TURN: usize = 1 << 20;

/// How long the last frames may take to leave, and the peer to close. 1 s.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Flushing,
    Shutting,
    Lingering,
}

pub(crate) struct Driver<Io> {
    io: Io,
    shared: Shared,
    keepalive: Keepalive,
    stage: Stage,
    /// Written since the last flush of the transport.
    unflushed: bool,
    end: Option<ConnectionEnd>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<Io: AsyncBufRead + AsyncWrite + Unpin> Driver<Io> {
    pub(crate) fn new(io: Io, role: Role, settings: &ConnectionSettings) -> Self {
        Self {
            io,
            shared: Rc::new(RefCell::new(Connection::new(role, settings))),
            keepalive: Keepalive::new(settings.keepalive),
            stage: Stage::Running,
            unflushed: false,
            end: None,
            deadline: None,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Moves everything that can be moved; ready when the connection has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        if self.stage == Stage::Running {
            self.run(cx);
        }
        if self.stage == Stage::Running {
            return Poll::Pending;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(FAREWELL)));
        let late = deadline.as_mut().poll(cx).is_ready();
        // Neither an error nor a lack of time changes how the connection ended.
        match self.poll_close(cx) {
            Poll::Pending if !late => Poll::Pending,
            _ => Poll::Ready(self.end.clone().unwrap_or(ConnectionEnd::Closed)),
        }
    }

    /// What the connection will have ended with, from the moment that it is known.
    pub(crate) fn decide_end(&mut self, end: ConnectionEnd) {
        self.end.get_or_insert(end);
        if self.stage == Stage::Running {
            self.stage = Stage::Flushing;
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) {
        self.shared.borrow_mut().set_mover(cx.waker());
        if let Some(end) = self.read(cx) {
            self.stop(end);
            return;
        }
        if self.keepalive.poll(cx, &mut self.shared.borrow_mut()).is_ready() {
            self.shared.borrow_mut().end(StreamError::PingTimeout);
            self.decide_end(ConnectionEnd::PingTimeout);
            return;
        }
        if self.shared.borrow_mut().is_finished() {
            self.decide_end(ConnectionEnd::Closed);
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            self.stop(ConnectionEnd::Io(error.to_string()));
        }
    }

    /// The transport is of no more use.
    fn stop(&mut self, end: ConnectionEnd) {
        self.shared.borrow_mut().end(StreamError::ConnectionLost);
        self.decide_end(end);
    }

    /// Reads until there is nothing more, or enough for a turn. Returns how the connection ended, if it did.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<ConnectionEnd> {
        let mut left = TURN;
        loop {
            let bytes = match Pin::new(&mut self.io).poll_fill_buf(cx) {
                Poll::Pending => return None,
                Poll::Ready(Ok([])) => return Some(self.end_of_input()),
                Poll::Ready(Ok(bytes)) => bytes,
                Poll::Ready(Err(error)) => return Some(ConnectionEnd::Io(error.to_string())),
            };
            let count = bytes.len();
            if let Err(violation) = self.shared.borrow_mut().receive(bytes) {
                return Some(ConnectionEnd::Violated { code: violation.code, reason: violation.reason });
            }
            Pin::new(&mut self.io).consume(count);
            left = left.saturating_sub(count);
            if left == 0 {
                cx.waker().wake_by_ref();
                return None;
            }
        }
    }

    /// The peer closed the transport: in order if nothing was open, or after a word of its own.
    fn end_of_input(&self) -> ConnectionEnd {
        let connection = self.shared.borrow();
        match connection.going_away() {
            Some(code) if code != ResetCode::NO_ERROR => ConnectionEnd::Protocol(code),
            _ if connection.open_streams() == 0 && !connection.awaits_preface() => ConnectionEnd::Closed,
            _ => ConnectionEnd::Io("closed by the peer".to_owned()),
        }
    }

    /// Writes until all is gone, in as few calls as the transport allows.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let count = {
                let connection = self.shared.borrow();
                if connection.output().is_empty() {
                    break;
                }
                ready!(Pin::new(&mut self.io).poll_write(cx, connection.output()))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.shared.borrow_mut().sent(count);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stage == Stage::Flushing {
            ready!(self.poll_write(cx))?;
            self.stage = Stage::Shutting;
        }
        if self.stage == Stage::Shutting {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.stage = Stage::Lingering;
        }
        if self.end != Some(ConnectionEnd::Closed) {
            return Poll::Ready(Ok(()));
        }
        // A socket that is closed with bytes unread is reset, and the reset overtakes our last ones.
        loop {
            let count = ready!(Pin::new(&mut self.io).poll_fill_buf(cx))?.len();
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            Pin::new(&mut self.io).consume(count);
        }
    }
}

impl<Io> Drop for Driver<Io> {
    fn drop(&mut self) {
        self.shared.borrow_mut().end(StreamError::ConnectionLost);
    }
}
