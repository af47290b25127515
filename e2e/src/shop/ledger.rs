//! `ledger`: books payments over TCP lines. It speaks first, as databases and mail servers do; whoever waits for the
//! client's first byte before connecting on makes it hang.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::lines::Lines;
use super::serve;

/// The first words.
pub(super) const GREETING: &str = "LEDGER ready";

/// Settings of the ledger.
#[derive(Args, Clone, Debug)]
pub struct LedgerFlags {
    /// Where to listen
    #[arg(long, default_value = "[::]:7000")]
    pub listen: SocketAddr,
}

/// Runs until SIGTERM.
///
/// # Errors
/// The address cannot be listened on.
pub async fn run(flags: LedgerFlags) -> Result<()> {
    let listener = serve::listen(flags.listen).await?;
    let mut connections = JoinSet::new();
    let stop = serve::stop();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                connections.spawn(book(stream));
            }
            // Reaps what has ended; errors are the client's (it went away).
            Some(_) = connections.join_next() => {}
            () = &mut stop => return Ok(()),
        }
    }
}

async fn book(stream: TcpStream) -> Result<()> {
    let mut lines = Lines::over(stream)?;
    lines.send(format!("{GREETING}\n").as_bytes()).await?;
    while let Some(line) = lines.next().await? {
        let answer =
            line.strip_prefix("BOOK ").map_or_else(|| "ERROR unknown".to_owned(), |entry| format!("BOOKED {entry}"));
        lines.send(format!("{answer}\n").as_bytes()).await?;
    }
    lines.finish().await
}
