//! Lines over TCP, with one deadline per exchange: what the ledger and Redis speak.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// See `caller::PATIENCE`.
const PATIENCE: Duration = Duration::from_secs(8);
/// No line of these protocols is longer, bytes.
const LONGEST: u64 = 64 * 1024;

/// A connection that exchanges lines.
#[derive(Debug)]
pub(super) struct Lines(BufStream<TcpStream>);

impl Lines {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        let connecting = timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = connecting.context("connect: no answer")?.with_context(|| format!("connect to {address}"))?;
        Self::over(stream)
    }

    pub(super) fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(BufStream::new(stream)))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).await?;
        Ok(self.0.flush().await?)
    }

    /// The next line without its end; `None` at the orderly end of the connection.
    pub(super) async fn next(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let reading = (&mut self.0).take(LONGEST).read_line(&mut line).await;
        if reading.context("read a line")? == 0 {
            return Ok(None);
        }
        ensure!(line.ends_with('\n'), "the connection ended within the line {line:?}");
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// As `next`, but the other side owes the line, and soon.
    pub(super) async fn expect(&mut self) -> Result<String> {
        timeout(PATIENCE, self.next()).await.context("no line in time")??.context("the connection ended without a line")
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.context("no bytes in time")??;
        Ok(bytes)
    }

    /// Ends our direction in order.
    pub(super) async fn finish(mut self) -> Result<()> {
        Ok(self.0.shutdown().await?)
    }
}
