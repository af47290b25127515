//! The access log: one line per connection when it ends (fields as ztunnel names them, and Weft's verdict,
//! reason, policy and shadow). The control thread makes the lines, a thread of its own writes them: whoever reads our
//! standard output may be slow or gone, and neither connections nor certificates nor configuration may wait for that.
//!
//! ```text
//! workers --Finished--> control thread: refusals, text --batch--> thread "access-log" --write--> stdout
//! ```
//! Both queues are bounded; what does not fit is dropped and counted (`weft_access_log_dropped`).

use std::io::Write;

use tokio::sync::mpsc;
use weft_runtime::threads::{self, SpawnError, Worker as Thread};

use super::line::{Style, write_line};
use super::queue::{CAPACITY, Finished, Lines, Lost, MANY};
use super::refusals::Refusals;

/// Lines per batch, which is one write.
const BATCH: usize = MANY;
/// Batches that wait for the writing thread: all that the queue of connections can give at once. With about 500 bytes a
/// line at most 4 MB.
const WAITING: usize = CAPACITY / BATCH;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// `key=value`, as people read it.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// No line.
    Off,
}

/// Some lines.
struct Batch {
    text: String,
    lines: u64,
}

/// Makes the lines, and has them written.
#[derive(Debug)]
pub struct AccessLog {
    lines: Lines,
    refusals: Refusals,
    format: LogFormat,
    batches: mpsc::Sender<Batch>,
    thread: Thread<()>,
}

impl AccessLog {
    /// Starts the thread that writes to `out`, for everything in the queue.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start<W>(lines: Lines, format: LogFormat, out: W) -> Result<Self, SpawnError>
    where
        W: Write + Send + 'static,
    {
        let (batches, waiting) = mpsc::channel(WAITING);
        let lost = lines.lost();
        let thread = threads::spawn("access-log", move || write_all(waiting, out, lost))?;
        Ok(Self { lines, refusals: Refusals::default(), format, batches, thread })
    }

    /// What the writer saw refused lately.
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Works until every worker is gone and all that was taken is written.
    pub async fn run(self) {
        let Self { mut lines, refusals, format, batches, mut thread } = self;
        let style = match format {
            LogFormat::Text => Some(Style::Text),
            LogFormat::Json => Some(Style::Json),
            LogFormat::Off => None,
        };
        let lost = lines.lost();
        let mut taken: Vec<Finished> = Vec::new();
        while lines.take(&mut taken).await {
            taken.iter().for_each(|finished| refusals.note(&finished.record));
            for some in taken.chunks(BATCH) {
                let Some(style) = style else { continue };
                if let Err(unsent) = batches.try_send(batch(style, some)) {
                    lost.add(unsent.into_inner().lines);
                }
            }
            taken.clear();
        }
        drop(batches);
        // A panic of the thread has been logged; there is nothing left to write with.
        let _ended = thread.join().await;
    }
}

fn batch(style: Style, some: &[Finished]) -> Batch {
    // Most lines are shorter.
    let mut text = String::with_capacity(some.len() * 512);
    for finished in some {
        write_line(style, &mut text, finished);
    }
    Batch { text, lines: some.len() as u64 }
}

/// The writing thread. Says once that it cannot write, and once that it can again: its lines come by the thousand.
async fn write_all(mut batches: mpsc::Receiver<Batch>, mut out: impl Write, lost: Lost) {
    let mut failing = false;
    while let Some(batch) = batches.recv().await {
        match out.write_all(batch.text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) if failing => {
                failing = false;
                tracing::info!("access log lines can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                lost.add(batch.lines);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "access log lines cannot be written; they are dropped and counted");
                }
            }
        }
    }
}
