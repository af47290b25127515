//! `shopper`: buys at a steady rate whatever the answers do (open loop, up to a crowd), checks every answer, and prints
//! running totals as JSON lines.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use hyper::Method;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::caller::Caller;
use super::serve;

/// Failures kept in words; all are counted.
const KEPT: usize = 20;
/// How often the totals are printed.
const PRINT: Duration = Duration::from_millis(100);

/// Settings of the shopper.
#[derive(Args, Clone, Debug)]
pub struct ShopperFlags {
    /// The front page
    #[arg(long)]
    pub web: SocketAddr,
    /// Purchases per second
    #[arg(long, default_value_t = 50)]
    pub rate: u32,
    /// The card number: the marker that must never be seen on the wire
    #[arg(long, default_value = "4111-MARKER")]
    pub card: String,
    /// Keep connections open between purchases
    #[arg(long)]
    pub keep_alive: bool,
}

/// Purchases under way at once. On a machine too busy for the rate, more of them would wait behind each other until all
/// fail of old age, which says nothing about the network; and nobody queues at a shop that is full.
const CUSTOMERS: usize = 32;

/// A failed purchase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShopError {
    /// When it was begun, ms since the shopper's start.
    pub begun_ms: u64,
    /// When it failed, ms since the shopper's start.
    pub failed_ms: u64,
    /// What was said, down to the hop and errno.
    pub error: String,
}

/// One line of output.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Milliseconds since the shopper's start.
    pub at_ms: u64,
    /// Purchases begun.
    pub sent: u64,
    /// Answered, and rightly.
    pub ok: u64,
    /// Failed or answered wrongly.
    pub failed: u64,
    /// Longest purchase that was answered, ms.
    pub worst_ms: u64,
    /// The last 20 failures.
    pub errors: Vec<ShopError>,
    /// True in the last line: everything has been answered or has failed.
    pub last: bool,
}

/// Runs until SIGTERM, then waits for what is in flight and prints the last line.
///
/// # Errors
/// Standard output is closed.
pub async fn run(flags: ShopperFlags) -> Result<()> {
    let start = Instant::now();
    let web = Arc::new(Caller::new(flags.web, flags.keep_alive));
    let totals = Arc::new(Mutex::new(Totals::default()));
    let mut purchases = JoinSet::new();
    let mut due = interval(Duration::from_secs(1) / flags.rate.max(1));
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut print = interval(PRINT);
    let stop = serve::stop();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            _ = due.tick(), if purchases.len() < CUSTOMERS => {
                let number = {
                    let mut totals = totals.lock().expect("no panic while held");
                    totals.sent += 1;
                    totals.sent
                };
                purchases.spawn(purchase(Arc::clone(&web), flags.card.clone(), number, start, Arc::clone(&totals)));
            }
            Some(_) = purchases.join_next() => {}
            _ = print.tick() => report(&totals, start, false)?,
            () = &mut stop => break,
        }
    }
    while purchases.join_next().await.is_some() {}
    report(&totals, start, true)
}

async fn purchase(web: Arc<Caller>, card: String, number: u64, start: Instant, totals: Arc<Mutex<Totals>>) {
    let begun = start.elapsed();
    let result = buy(&web, &card, number).await;
    let ended = start.elapsed();
    let mut totals = totals.lock().expect("no panic while held");
    match result {
        Ok(()) => {
            totals.ok += 1;
            totals.worst_ms = totals.worst_ms.max(millis(ended.saturating_sub(begun)));
        }
        Err(error) => {
            totals.failed += 1;
            if totals.errors.len() == KEPT {
                totals.errors.remove(0);
            }
            let error = format!("{error:#}");
            totals.errors.push(ShopError { begun_ms: millis(begun), failed_ms: millis(ended), error });
        }
    }
}

async fn buy(web: &Caller, card: &str, number: u64) -> Result<()> {
    let answer = web.call(Method::POST, "/buy", format!("{number} teapot {card}")).await?;
    let expected = format!("{number} teapot for {card} at 12.50, BOOKED {number} {card} 12.50");
    ensure!(answer == expected, "bought {answer:?} instead of {expected:?}");
    Ok(())
}

fn report(totals: &Mutex<Totals>, start: Instant, last: bool) -> Result<()> {
    let mut totals = totals.lock().expect("no panic while held").clone();
    (totals.at_ms, totals.last) = (millis(start.elapsed()), last);
    let mut line = serde_json::to_string(&totals)?;
    line.push('\n');
    Ok(std::io::stdout().write_all(line.as_bytes())?)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
