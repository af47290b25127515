//! The one accept loop of the data path.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

/// Rest after an error that will not go away at once (no descriptors left): long enough not to spin, short enough that the
/// clients in the queue do not notice.
const REST: Duration = Duration::from_millis(50);

/// Ends one listener.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Another listener stands in its place. What waits in the queue of this one is still taken: the kernel would reset it.
    pub replaced: CancellationToken,
    /// This agent takes nothing new. The queue is left alone: the capture half holds the same listener open for a successor.
    pub retired: CancellationToken,
}

/// Hands every connection of the listener to `take` until one of its ends comes.
pub async fn accept_all(listener: TcpListener, ends: Ends, take: impl Fn(TcpStream, SocketAddr)) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ends.replaced.cancelled() => break,
            () = ends.retired.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                failing = false;
                take(stream, client);
            }
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                // Once, until it works again: every listener of every pod meets the same, 20 times a second.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections for the moment");
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
    // Unconstrained: tokio's budget would make a long queue look empty.
    while let Some(Ok((stream, client))) = unconstrained(listener.accept()).now_or_never() {
        take(stream, client);
    }
}

/// One connection that is gone; the next one may be fine.
fn concerns_one(error: &io::Error) -> bool {
    let of_one = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    of_one.contains(&error.kind())
}
