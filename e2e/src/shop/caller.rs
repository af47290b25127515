//! An HTTP/1.1 client for one address: on kept connections, or on a new one for each call. It never repeats a call:
//! whatever the network does to a request, the shopper must see it.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A call takes a few ms; a restarted proxy under load makes it wait one or two SYN retransmissions (1 s, 3 s).
const PATIENCE: Duration = Duration::from_secs(8);

/// A kept connection is renewed after this, as load balancers like it; also what lets the demo see the last plaintext
/// connection end soon after the shop was enrolled.
pub(crate) const LIFE: Duration = Duration::from_secs(2);

/// Calls one address.
#[derive(Debug)]
pub(super) struct Caller {
    address: SocketAddr,
    keep_alive: bool,
    idle: Mutex<Vec<Kept>>,
}

/// A connection between two calls.
#[derive(Debug)]
struct Kept {
    since: Instant,
    sender: SendRequest<Full<Bytes>>,
}

impl Caller {
    pub(super) fn new(address: SocketAddr, keep_alive: bool) -> Self {
        Self { address, keep_alive, idle: Mutex::default() }
    }

    /// One request, one answer; another status than 200 is an error with the body in it.
    pub(super) async fn call(&self, method: Method, path: &str, body: String) -> Result<String> {
        let answer = timeout(PATIENCE, self.exchange(method, path, body)).await;
        let (status, text) = answer.with_context(|| format!("no answer from {} in {PATIENCE:?}", self.address))??;
        if status != StatusCode::OK {
            bail!("{status} {text}");
        }
        Ok(text)
    }

    async fn exchange(&self, method: Method, path: &str, body: String) -> Result<(StatusCode, String)> {
        let mut kept = match self.kept() {
            Some(kept) => kept,
            None => Kept { since: Instant::now(), sender: self.connect().await? },
        };
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("connection", connection)
            .body(Full::from(body))?;
        let answer =
            kept.sender.send_request(request).await.with_context(|| format!("exchange with {}", self.address))?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if self.keep_alive {
            self.idle.lock().expect("no panic while held").push(kept);
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// A connection that is free, young enough, and has not been ended by the other side.
    fn kept(&self) -> Option<Kept> {
        let mut idle = self.idle.lock().expect("no panic while held");
        idle.retain(|kept| kept.since.elapsed() < LIFE && kept.sender.is_ready());
        idle.pop()
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await.with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends by itself with the connection; its error is also the sender's.
        tokio::spawn(connection);
        Ok(sender)
    }
}
