//! The access log: one line per connection when it ends (fields as in `ambient-wire.md` section 14, and Weft's verdict,
//! reason, policy and shadow). The control thread makes the lines, a thread of its own writes them: whoever reads our
//! standard output may be slow or gone, and neither connections nor certificates nor configuration may wait for that.
//!
//! ```text
//! workers --Finished--> control thread: refusals, text --batch--> thread "access-log" --write--> stdout
//! ```
//! Both queues are bounded; what does not fit is dropped and counted (`weft_access_log_dropped`).

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use weft_model::Workload;
use weft_runtime::threads::{self, SpawnError, Worker as Thread};

use super::record::Direction;
use super::refusals::Refusals;
use super::worker::{Finished, Lines};

/// Lines per batch, which is one write.
const BATCH: usize = 256;
/// Batches that wait for the writing thread. 16: with about 500 bytes a line at most 2 MB.
const WAITING: usize = 16;

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
        let dropped = lines.dropped.clone();
        let thread = threads::spawn("access-log", move || write_all(waiting, out, dropped))?;
        Ok(Self { lines, refusals: Refusals::default(), format, batches, thread })
    }

    /// What the writer saw refused lately.
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Works until every worker is gone and all that was taken is written. Takes what is there in one go, so that many
    /// lines are one write.
    pub async fn run(self) {
        let Self { mut lines, refusals, format, batches, mut thread } = self;
        let mut taken = Vec::with_capacity(BATCH);
        while lines.finished.recv_many(&mut taken, BATCH).await > 0 {
            let mut batch = Batch { text: String::new(), lines: 0 };
            for finished in taken.drain(..) {
                refusals.note(&finished.record);
                match format {
                    LogFormat::Text => text_line(&mut batch.text, &finished),
                    LogFormat::Json => json_line(&mut batch.text, &finished),
                    LogFormat::Off => continue,
                }
                batch.text.push('\n');
                batch.lines += 1;
            }
            if batch.lines > 0
                && let Err(unsent) = batches.try_send(batch)
            {
                lines.dropped.fetch_add(unsent.into_inner().lines, Ordering::Relaxed);
            }
        }
        drop(batches);
        // A panic of the thread has been logged; there is nothing left to write with.
        let _ended = thread.join().await;
    }
}

/// The writing thread. Says once that it cannot write, and once that it can again: its lines come by the thousand.
async fn write_all(mut batches: mpsc::Receiver<Batch>, mut out: impl Write, dropped: Arc<AtomicU64>) {
    let mut failing = false;
    while let Some(batch) = batches.recv().await {
        match out.write_all(batch.text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) if failing => {
                failing = false;
                tracing::info!("access log lines can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                dropped.fetch_add(batch.lines, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "access log lines cannot be written; they are dropped and counted");
                }
            }
        }
    }
}

/// The fields of a line, in their order; empty ones are left out.
fn fields(finished: &Finished) -> Vec<(&'static str, Value)> {
    let record = &finished.record;
    let mut fields: Vec<(&'static str, Value)> = Vec::with_capacity(24);
    let mut put = |name, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fields.push((name, Value::String(value)));
        }
    };
    let of = |workload: &Option<Arc<Workload>>, field: fn(&Workload) -> &str| {
        workload.as_deref().map(|workload| field(workload).to_owned())
    };
    put("time", Some(time_of(finished.ended)));
    put("verdict", Some(if record.reason.is_some() { "refused" } else { "ok" }.to_owned()));
    put("reason", record.reason.map(|reason| reason.code().to_owned()));
    put("direction", Some(record.direction.word().to_owned()));
    put("src.addr", Some(record.source.to_string()));
    put("src.workload", of(&record.source_workload, |workload| &workload.name));
    put("src.namespace", of(&record.source_workload, |workload| &workload.namespace));
    put("src.identity", record.source_identity.as_ref().map(ToString::to_string));
    put("dst.addr", Some(record.destination.to_string()));
    put("dst.hbone_addr", record.hbone_target.clone());
    put("dst.service", record.service.as_deref().map(|service| service.key.hostname.to_string()));
    put("dst.workload", of(&record.destination_workload, |workload| &workload.name));
    put("dst.namespace", of(&record.destination_workload, |workload| &workload.namespace));
    put("dst.identity", record.destination_identity.as_ref().map(ToString::to_string));
    put("security", Some(record.security.word().to_owned()));
    put("policy", record.policy.as_ref().map(ToString::to_string));
    put("shadow_denied_by", record.shadow.as_ref().map(|shadow| shadow.policy.to_string()));
    put("error", record.detail.clone());
    // Sent and received from the point of view of the reporting side, as Istio's log has it.
    let (sent, received) = match record.direction {
        Direction::Outbound => (record.sent, record.received),
        Direction::Inbound => (record.received, record.sent),
    };
    fields.push(("bytes_sent", json!(sent)));
    fields.push(("bytes_recv", json!(received)));
    let milliseconds = u64::try_from(finished.lasted.as_millis()).unwrap_or(u64::MAX);
    fields.push(("duration_ms", json!(milliseconds)));
    fields
}

/// RFC 3339 in UTC, to the millisecond.
fn time_of(moment: SystemTime) -> String {
    humantime::format_rfc3339_millis(moment).to_string()
}

/// Written by hand, because a map would sort the names: `time` comes first, as in text.
fn json_line(line: &mut String, finished: &Finished) {
    let mut before = '{';
    for (name, value) in fields(finished).into_iter().chain([("target", json!("access"))]) {
        let written = write!(line, "{before}\"{name}\":{value}");
        debug_assert!(written.is_ok(), "writing into a String cannot fail");
        before = ',';
    }
    line.push('}');
}

/// Values are quoted when they could be misread, so that a line can be cut at its spaces.
fn text_line(line: &mut String, finished: &Finished) {
    line.push_str("access");
    for (name, value) in fields(finished) {
        let written = match &value {
            Value::String(text) if !text.contains([' ', '"', '=', '\n']) => write!(line, " {name}={text}"),
            other => write!(line, " {name}={other}"),
        };
        debug_assert!(written.is_ok(), "writing into a String cannot fail");
    }
}
