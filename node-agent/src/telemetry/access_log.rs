//! The access log: one line per connection when it ends, written by the control thread (fields as in `ambient-wire.md`
//! section 14, and Weft's verdict, reason, policy and shadow). Lines that the writer cannot keep up with are dropped
//! and counted; a connection never waits for its line.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use weft_model::Workload;

use super::record::{ConnectionRecord, Direction};
use super::refusals::Refusals;

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

/// Writes the lines.
#[derive(Debug)]
pub struct AccessLog<W> {
    records: mpsc::Receiver<ConnectionRecord>,
    refusals: Refusals,
    format: LogFormat,
    out: W,
}

impl<W: Write> AccessLog<W> {
    /// A writer of everything in the queue.
    pub fn new(records: mpsc::Receiver<ConnectionRecord>, format: LogFormat, out: W) -> Self {
        Self { records, refusals: Refusals::default(), format, out }
    }

    /// What the writer saw refused lately.
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Writes until every worker is gone. Takes what is there in one go, so that many lines are one write.
    pub async fn run(mut self) {
        /// Lines per write.
        const BATCH: usize = 256;
        let mut batch = Vec::with_capacity(BATCH);
        let mut text = String::new();
        while self.records.recv_many(&mut batch, BATCH).await > 0 {
            text.clear();
            for record in batch.drain(..) {
                self.refusals.note(&record);
                match self.format {
                    LogFormat::Text => text_line(&mut text, &record),
                    LogFormat::Json => text.push_str(&json_line(&record).to_string()),
                    LogFormat::Off => continue,
                }
                text.push('\n');
            }
            if let Err(error) = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
                tracing::warn!(%error, "access log lines could not be written");
            }
        }
    }
}

/// The fields of a line, in their order; empty ones are left out.
fn fields(record: &ConnectionRecord) -> Vec<(&'static str, Value)> {
    let mut fields: Vec<(&'static str, Value)> = Vec::with_capacity(24);
    let mut put = |name, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fields.push((name, Value::String(value)));
        }
    };
    let of = |workload: &Option<std::sync::Arc<Workload>>, field: fn(&Workload) -> &str| {
        workload.as_deref().map(|workload| field(workload).to_owned())
    };
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
    let milliseconds = u64::try_from(record.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    fields.push(("duration_ms", json!(milliseconds)));
    fields
}

fn json_line(record: &ConnectionRecord) -> Value {
    let fields = fields(record).into_iter().map(|(name, value)| (name.to_owned(), value));
    let head = [("target".to_owned(), json!("access"))];
    Value::Object(Map::from_iter(head.into_iter().chain(fields)))
}

/// Values are quoted when they could be misread, so that a line can be cut at its spaces.
fn text_line(line: &mut String, record: &ConnectionRecord) {
    line.push_str("access");
    for (name, value) in fields(record) {
        let written = match &value {
            Value::String(text) if !text.contains([' ', '"', '=', '\n']) => write!(line, " {name}={text}"),
            other => write!(line, " {name}={other}"),
        };
        debug_assert!(written.is_ok(), "writing into a String cannot fail");
    }
}
