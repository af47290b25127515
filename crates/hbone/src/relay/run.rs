//! Both directions of a relay in one future, and what its end does to the two sides.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
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
/// The socket should have been through [`super::reset_unless_orderly`]. Dropping the future resets both sides.
pub async fn relay_tunnel<C>(
    mut app: TcpStream,
    tunnel: Tunnel,
    buffers: &Buffers,
    traffic: &Traffic,
    cancel: impl Future<Output = C>,
) -> RelayOutcome<C> {
    let (reading, writing) = app.split();
    let watch = pin!(error_event(&writing));
    let mut near = SocketEnd::new(reading, &writing, watch);
    run(&mut near, &mut TunnelEnd(tunnel), buffers, traffic, cancel).await
}

/// Relays between two sockets: on the same node, past the mesh, or from plaintext inbound. Otherwise as [`relay_tunnel`].
pub async fn relay_sockets<C>(
    mut app: TcpStream,
    mut peer: TcpStream,
    buffers: &Buffers,
    traffic: &Traffic,
    cancel: impl Future<Output = C>,
) -> RelayOutcome<C> {
    let (near_reading, near_writing) = app.split();
    let (far_reading, far_writing) = peer.split();
    let near_watch = pin!(error_event(&near_writing));
    let far_watch = pin!(error_event(&far_writing));
    let mut near = SocketEnd::new(near_reading, &near_writing, near_watch);
    let mut far = SocketEnd::new(far_reading, &far_writing, far_watch);
    run(&mut near, &mut far, buffers, traffic, cancel).await
}

async fn error_event(half: &WriteHalf<'_>) -> io::Result<()> {
    half.ready(Interest::ERROR).await.map(|_| ())
}

async fn run<A, B, C>(
    app: &mut A,
    peer: &mut B,
    buffers: &Buffers,
    traffic: &Traffic,
    cancel: impl Future<Output = C>,
) -> RelayOutcome<C>
where
    A: End + Source<B>,
    B: End + Source<A>,
{
    let mut cancel = pin!(cancel);
    let mut up = Pump::new(&traffic.sent);
    let mut down = Pump::new(&traffic.received);
    let end = poll_fn(|cx| {
        if let Poll::Ready(why) = cancel.as_mut().poll(cx) {
            return Poll::Ready(RelayEnd::Cancelled(why));
        }
        turn(cx, app, peer, (&mut up, &mut down), buffers)
    })
    .await;
    match end {
        RelayEnd::Orderly => {
            app.close_orderly();
            peer.close_orderly();
        }
        RelayEnd::Cancelled(_) => {
            app.reset();
            peer.reset();
        }
        RelayEnd::ResetBy(Side::App) | RelayEnd::Timeout(Side::App) => {
            let words = poll_fn(|cx| last_words(cx, app, peer, &mut up, buffers));
            // Either way the reset follows.
            let _ = timeout(LAST_WORDS, words).await;
            app.reset();
            peer.reset();
        }
        RelayEnd::ResetBy(Side::Peer) | RelayEnd::Timeout(Side::Peer) => {
            let words = poll_fn(|cx| last_words(cx, peer, app, &mut down, buffers));
            let _ = timeout(LAST_WORDS, words).await;
            app.reset();
            peer.reset();
        }
    }
    RelayOutcome { sent: traffic.sent(), received: traffic.received(), end }
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
    if upward != Turn::Reading
        && let Poll::Ready(broken) = app.poll_watch(cx)
    {
        return failed(Side::App, broken);
    }
    if downward != Turn::Reading
        && let Poll::Ready(broken) = peer.poll_watch(cx)
    {
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
