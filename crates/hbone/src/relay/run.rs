//! Both directions of a relay in one future, and what its end does to the two sides.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::buffers::Buffers;
use super::end::{Broken, End, Source};
use super::outcome::{RelayEnd, RelayOutcome, Side, Traffic};
use super::pump::{Pump, Turn};
use super::socket::SocketEnd;
use super::stream::TunnelEnd;
use crate::tunnel::Tunnel;

/// How long the last bytes of a side that was reset may take to leave before the reset follows them. 1 s: a server that answers and closes
/// without reading the rest of the request resets its connection (Linux does), and its answer should still arrive, as it does without a mesh.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Relays between an application's socket and a tunnel until both directions ended, one side failed, or `cancel` is ready.
/// The socket should have been through [`super::reset_unless_orderly`]; whoever holds both drops both afterwards, and when the future is
/// dropped: that resets both sides.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and this is what an idle connection costs"
)]
pub fn relay_tunnel<'r, C: 'r>(
    app: &'r mut TcpStream,
    tunnel: &'r mut Tunnel,
    buffers: &'r Buffers,
    traffic: &'r Traffic,
    cancel: impl Future<Output = C> + Unpin + 'r,
) -> impl Future<Output = RelayOutcome<C>> + 'r {
    async move {
        let (reading, writing) = app.split();
        Relay::new(SocketEnd::new(reading, &writing), TunnelEnd(tunnel), buffers, traffic, cancel).run().await
    }
}

/// Relays between two sockets: on the same node, past the mesh, or from plaintext inbound. Otherwise as [`relay_tunnel`].
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and this is what an idle connection costs"
)]
pub fn relay_sockets<'r, C: 'r>(
    app: &'r mut TcpStream,
    peer: &'r mut TcpStream,
    buffers: &'r Buffers,
    traffic: &'r Traffic,
    cancel: impl Future<Output = C> + Unpin + 'r,
) -> impl Future<Output = RelayOutcome<C>> + 'r {
    async move {
        let (near_reading, near_writing) = app.split();
        let (far_reading, far_writing) = peer.split();
        let near = SocketEnd::new(near_reading, &near_writing);
        let far = SocketEnd::new(far_reading, &far_writing);
        Relay::new(near, far, buffers, traffic, cancel).run().await
    }
}

/// Both directions.
struct Relay<'r, A, B, Cancel> {
    app: A,
    peer: B,
    up: Pump<'r>,
    down: Pump<'r>,
    buffers: &'r Buffers,
    cancel: Cancel,
}

impl<'r, A, B, C, Cancel> Relay<'r, A, B, Cancel>
where
    A: End + Source<B>,
    B: End + Source<A>,
    Cancel: Future<Output = C> + Unpin,
{
    fn new(app: A, peer: B, buffers: &'r Buffers, traffic: &'r Traffic, cancel: Cancel) -> Self {
        Self { app, peer, up: Pump::new(&traffic.sent), down: Pump::new(&traffic.received), buffers, cancel }
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and this is what an idle connection costs"
    )]
    fn run(mut self) -> impl Future<Output = RelayOutcome<C>> {
        async move {
            let end = poll_fn(|cx| self.poll(cx)).await;
            match end {
                RelayEnd::Orderly => {
                    self.app.close_orderly();
                    self.peer.close_orderly();
                }
                RelayEnd::Cancelled(_) => self.reset(),
                // In a box, as few connections come here. Whether the last words got out or not, the reset follows.
                RelayEnd::ResetBy(Side::App) | RelayEnd::Timeout(Side::App) => {
                    let Self { app, peer, up, buffers, .. } = &mut self;
                    let words = poll_fn(|cx| last_words(cx, app, peer, up, buffers));
                    let _ = Box::pin(timeout(LAST_WORDS, words)).await;
                    self.reset();
                }
                RelayEnd::ResetBy(Side::Peer) | RelayEnd::Timeout(Side::Peer) => {
                    let Self { app, peer, down, buffers, .. } = &mut self;
                    let words = poll_fn(|cx| last_words(cx, peer, app, down, buffers));
                    let _ = Box::pin(timeout(LAST_WORDS, words)).await;
                    self.reset();
                }
            }
            RelayOutcome { sent: self.up.moved(), received: self.down.moved(), end }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd<C>> {
        if let Poll::Ready(why) = Pin::new(&mut self.cancel).poll(cx) {
            return Poll::Ready(RelayEnd::Cancelled(why));
        }
        turn(cx, &mut self.app, &mut self.peer, (&mut self.up, &mut self.down), self.buffers)
    }

    fn reset(&mut self) {
        self.app.reset();
        self.peer.reset();
    }
}

/// One poll of both directions.
fn turn<A, B, C>(
    cx: &mut Context<'_>,
    app: &mut A,
    peer: &mut B,
    (up, down): (&mut Pump<'_>, &mut Pump<'_>),
    buffers: &Buffers,
) -> Poll<RelayEnd<C>>
where
    A: End + Source<B>,
    B: End + Source<A>,
{
    let upward = up.turn(cx, app, peer, buffers);
    let downward = down.turn(cx, peer, app, buffers);
    match (upward, downward) {
        (Turn::Done, Turn::Done) => return Poll::Ready(RelayEnd::Orderly),
        (Turn::SourceBroken(broken), _) | (_, Turn::SinkBroken(broken)) => return failed(Side::App, broken),
        (_, Turn::SourceBroken(broken)) | (Turn::SinkBroken(broken), _) => return failed(Side::Peer, broken),
        _ => {}
    }
    if upward == Turn::Reading {
        app.stop_watching();
    } else if let Poll::Ready(broken) = app.poll_watch(cx) {
        return failed(Side::App, broken);
    }
    if downward == Turn::Reading {
        peer.stop_watching();
    } else if let Poll::Ready(broken) = peer.poll_watch(cx) {
        if broken == Broken::Unwanted {
            up.give_up();
            if downward == Turn::Done {
                return Poll::Ready(RelayEnd::Orderly);
            }
            return Poll::Pending;
        }
        return failed(Side::Peer, broken);
    }
    Poll::Pending
}

fn failed<C>(side: Side, broken: Broken) -> Poll<RelayEnd<C>> {
    Poll::Ready(match broken {
        Broken::Timeout => RelayEnd::Timeout(side),
        Broken::Reset | Broken::Unwanted => RelayEnd::ResetBy(side),
    })
}

/// Moves what the failed side had said before it failed. Its own end is not believed: the reset comes in any case.
fn last_words<K: End>(
    cx: &mut Context<'_>,
    failed: &mut impl Source<K>,
    other: &mut K,
    pump: &mut Pump<'_>,
    buffers: &Buffers,
) -> Poll<()> {
    match pump.last_turn(cx, failed, other, buffers) {
        // A write may learn of the reset before the reactor does: what was said is then read when the event comes, which is certain.
        Turn::Blocked | Turn::Reading => Poll::Pending,
        Turn::Done | Turn::SourceBroken(_) | Turn::SinkBroken(_) => other.poll_drained(cx),
    }
}
