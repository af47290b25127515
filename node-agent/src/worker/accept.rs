//! The one accept loop of the data path. It takes a few connections and lets the others of its worker go on: a listener that
//! is flooded costs its neighbours one turn in each round of the worker, not the round.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weft_model::Reason;

use super::gate::Gate;
use super::limits::{PATIENCE, Verdict};
use super::set_up::SetUp;

/// Connections that are taken in one turn. Two: what one costs until it stands (some ten turns of its own) is a
/// hundred times what accepting it costs, so more in a turn gain nothing, and each makes the round longer for the others.
const TAKEN_PER_TURN: u32 = 2;
/// Connections that are shed in one turn, before the listener rests for [`SHED_REST`]: 8,000 a second at most, a tenth of a worker.
const SHED_PER_TURN: u32 = 8;
/// See [`SHED_PER_TURN`].
const SHED_REST: Duration = Duration::from_millis(1);
/// How often a listener looks whether its pod's set-ups have become less.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Rest after an error that will not go away at once (no descriptors left): long enough not to spin, short enough that the
/// clients in the queue do not notice.
const REST: Duration = Duration::from_millis(50);

/// Ends one listener.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Another listener stands in its place, or none ever will. What waits in the queue of this one is still taken: the kernel would reset it.
    pub replaced: CancellationToken,
    /// This agent takes nothing new. The queue is left alone: the capture half holds the same listener open for a successor.
    pub retired: CancellationToken,
}

/// Hands every connection of the listener that the gate lets in to `take`, until one of its ends comes.
pub async fn accept_all(listener: TcpListener, ends: Ends, gate: Gate, take: impl Fn(TcpStream, SocketAddr, SetUp)) {
    let (mut taken, mut shed) = (0, 0);
    let mut failing: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ends.replaced.cancelled() => break,
            () = ends.retired.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => match patiently(&gate, &stream, client).await {
                Some(reason) => {
                    gate.shed(stream, client, reason);
                    shed += 1;
                }
                None => {
                    if failing.is_some() && gate.recovered() {
                        failing = None;
                    }
                    take(stream, client, gate.begin(client.ip()));
                    taken += 1;
                }
            },
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                if gate.paused() {
                    tracing::warn!(%error, "cannot accept connections for the moment");
                }
                let since = *failing.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    shed_with_reserve(&listener, &gate);
                }
                sleep(REST).await;
            }
        }
        if shed >= SHED_PER_TURN {
            shed = 0;
            sleep(SHED_REST).await;
        } else if taken >= TAKEN_PER_TURN {
            taken = 0;
            yield_now().await;
        }
    }
    for (stream, client) in waiting(listener) {
        match gate.judge(&stream, client.ip()) {
            Verdict::Shed(reason) => gate.shed(stream, client, reason),
            Verdict::Take | Verdict::Wait => take(stream, client, gate.begin(client.ip())),
        }
    }
}

/// Whoever waits in the queue of a listener that ends. Asked of the kernel: tokio would call a queue empty of which it has not heard yet.
fn waiting(listener: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let listener = listener.into_std();
    std::iter::from_fn(move || {
        let listener = listener.as_ref().ok()?;
        loop {
            match listener.accept() {
                Ok((stream, client)) => {
                    stream.set_nonblocking(true).ok()?;
                    return Some((TcpStream::from_std(stream).ok()?, client));
                }
                Err(error) if concerns_one(&error) => {}
                Err(_empty) => return None,
            }
        }
    })
}

/// Waits for a while where the pod has too many set-ups in hand; says why the connection must be shed, if it must.
async fn patiently(gate: &Gate, stream: &TcpStream, client: SocketAddr) -> Option<Reason> {
    let end = Instant::now() + PATIENCE;
    loop {
        match gate.judge(stream, client.ip()) {
            Verdict::Take => return None,
            Verdict::Shed(reason) => return Some(reason),
            Verdict::Wait if Instant::now() >= end => return Some(Reason::SetupLimit),
            Verdict::Wait => sleep(LOOK_AGAIN).await,
        }
    }
}

/// Resets some of those who wait in the queue for a descriptor that does not come.
fn shed_with_reserve(listener: &TcpListener, gate: &Gate) {
    for _ in 0..SHED_PER_TURN {
        let accepted = gate.reserve().spend(|| unconstrained(listener.accept()).now_or_never());
        let Some(Some(Ok((stream, client)))) = accepted else { break };
        gate.shed(stream, client, Reason::DescriptorLimit);
    }
    gate.reserve().renew();
}

/// One connection that is gone; the next one may be fine.
fn concerns_one(error: &io::Error) -> bool {
    let of_one = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    of_one.contains(&error.kind())
}
