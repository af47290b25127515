//! Puts the services onto one gRPC server and runs it until it is drained.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use weft_runtime::drain;
use weft_wire::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use weft_wire::proto::node::node_service_server::NodeServiceServer;

use super::ads::Ads;
use super::caller::Authenticate;
use super::gate::GateLayer;
use super::report::{REPORT_LIMIT, Reports};

/// A PING every 30 s to each node, and 10 s for its answer: what the client does, too (`weft_wire::connect`), so
/// that both ends find a dead connection within 40 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection: one discovery stream, and certificate requests (8 at once, as ztunnel), and reports.
const STREAMS_PER_CONNECTION: u32 = 128;
/// A call must be answered within this, its message read included; for a stream: its beginning. A client that sends its
/// request byte by byte holds nothing for longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest request. The first one of a stream names each resource held with its version, some 100 bytes each: enough for
/// 600,000. Only authenticated nodes get as far as this.
const REQUEST_LIMIT: usize = 64 * 1024 * 1024;

/// The server ended by a fault.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server failed: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves discovery and reports, and what `more` adds (certificates), to authenticated nodes on the connections of
/// `incoming`, until the drain: then nothing new is accepted, streams end, and calls in progress finish.
///
/// # Errors
/// The server fails as a whole; a fault of one connection ends that connection only.
pub async fn serve<I, C>(
    incoming: I,
    authenticate: Arc<dyn Authenticate>,
    (ads, reports): (Ads, Reports),
    more: impl FnOnce(Routes) -> Routes,
    drain: drain::Watch,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<C>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let ads = AggregatedDiscoveryServiceServer::new(ads).max_decoding_message_size(REQUEST_LIMIT);
    let routes =
        more(Routes::new(ads).add_service(NodeServiceServer::new(reports).max_decoding_message_size(REPORT_LIMIT)));
    let observer = drain.observer();
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .timeout(CALL_TIMEOUT)
        .layer(GateLayer(authenticate))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            observer.signalled().await;
        });
    tokio::select! {
        ended = server => Ok(ended?),
        () = drain.forced() => Ok(()),
    }
}
