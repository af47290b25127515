//! What all servers of the shop share: listen, serve HTTP, end cleanly on SIGTERM, say what failed.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Answer of a handler: a failed hop is a 502 with its name and the system's words, which the shopper reports.
pub(super) type Answer = Result<String, (StatusCode, String)>;

/// Words a failed hop.
pub(super) fn bad_gateway(hop: &str, error: &anyhow::Error) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, format!("{hop}: {error:#}"))
}

/// Listens in both families.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

/// Ends when SIGTERM or SIGINT comes.
pub(super) async fn stop() {
    // Without a handler the signal ends the program at once, which is acceptable for a workload.
    if let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM, then ends what is open in order.
pub(super) async fn http(address: SocketAddr, routes: Router) -> Result<()> {
    let listener = listen(address).await?;
    axum::serve(listener, routes).with_graceful_shutdown(stop()).await?;
    Ok(())
}
