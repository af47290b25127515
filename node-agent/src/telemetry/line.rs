//! One line of the access log. Written straight into the batch: a line costs no allocation of its own (as a list of JSON
//! values it cost twenty).

use std::fmt::{Display, Write};

use super::queue::Finished;
use super::record::{ConnectionRecord, Direction, Probe};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `access key=value key="a value"`.
    Text,
    /// One JSON object, its fields in the same order.
    Json,
}

/// Appends the line of a connection, with its end of line.
pub(super) fn write_line(style: Style, out: &mut String, finished: &Finished) {
    let mut line = Line { style, out, first: true };
    if style == Style::Text {
        line.out.push_str("access");
    }
    fields(&mut line, finished);
    if style == Style::Json {
        line.text("target", "access");
        line.out.push('}');
    }
    line.out.push('\n');
}

/// The fields in their order; empty ones are left out.
fn fields(line: &mut Line<'_>, finished: &Finished) {
    let record = &finished.record;
    // RFC 3339 in UTC, to the millisecond.
    line.shown("time", Some(humantime::format_rfc3339_millis(finished.ended)));
    line.text("verdict", if record.reason.is_some() { "refused" } else { "ok" });
    line.text("reason", record.reason.map_or("", |reason| reason.code()));
    line.text("direction", record.direction.word());
    line.shown("src.addr", Some(record.source));
    let source = record.source_workload.as_deref();
    line.text("src.workload", source.map_or("", |workload| &workload.name));
    line.text("src.namespace", source.map_or("", |workload| &workload.namespace));
    line.shown("src.identity", record.source_identity.as_ref());
    line.shown("dst.addr", Some(record.destination));
    line.shown("dst.hbone_addr", record.hbone_target.as_ref());
    line.text("dst.service", record.service.as_deref().map_or("", |service| &service.key.hostname));
    let destination = record.destination_workload.as_deref();
    line.text("dst.workload", destination.map_or("", |workload| &workload.name));
    line.text("dst.namespace", destination.map_or("", |workload| &workload.namespace));
    line.shown("dst.identity", record.destination_identity.as_ref());
    line.text("security", record.security.word());
    line.text("probe", record.probe.map_or("", Probe::word));
    line.shown("policy", record.policy.as_ref());
    line.shown("shadow_denied_by", record.shadow.as_ref().map(|shadow| &shadow.policy));
    line.text("error", record.detail.as_deref().unwrap_or_default());
    let (sent, received) = bytes(record);
    line.number("bytes_sent", sent);
    line.number("bytes_recv", received);
    line.number("duration_ms", u64::try_from(finished.lasted.as_millis()).unwrap_or(u64::MAX));
}

/// Sent and received from the point of view of the reporting side, as Istio's log has it.
fn bytes(record: &ConnectionRecord) -> (u64, u64) {
    match record.direction {
        Direction::Outbound => (record.sent, record.received),
        Direction::Inbound => (record.received, record.sent),
    }
}

struct Line<'a> {
    style: Style,
    out: &'a mut String,
    first: bool,
}

impl Line<'_> {
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.shown(name, Some(value));
        }
    }

    fn shown(&mut self, name: &str, value: Option<impl Display>) {
        let Some(value) = value else { return };
        self.name(name);
        if self.style == Style::Json {
            self.out.push('"');
        }
        let start = self.out.len();
        self.display(value);
        if self.out[start..].contains(|c| self.special(c)) {
            // As a JSON string, in both styles: rare, so it may allocate.
            let value = self.out.split_off(start);
            if self.style == Style::Json {
                self.out.pop();
            }
            self.display(serde_json::Value::String(value));
        } else if self.style == Style::Json {
            self.out.push('"');
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.display(value);
    }

    fn name(&mut self, name: &str) {
        match self.style {
            Style::Text => {
                self.out.push(' ');
                self.out.push_str(name);
                self.out.push('=');
            }
            Style::Json => {
                self.out.push(if self.first { '{' } else { ',' });
                self.out.push('"');
                self.out.push_str(name);
                self.out.push_str("\":");
            }
        }
        self.first = false;
    }

    fn display(&mut self, value: impl Display) {
        let written = write!(self.out, "{value}");
        debug_assert!(written.is_ok(), "writing into a String cannot fail");
    }

    /// What could be misread: a text line can be cut at its spaces, a JSON string ends at its quote.
    fn special(&self, c: char) -> bool {
        match self.style {
            Style::Text => matches!(c, ' ' | '"' | '=') || c.is_control(),
            Style::Json => matches!(c, '"' | '\\') || c.is_control(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{Style, write_line};
    use crate::telemetry::queue::Finished;
    use crate::telemetry::{ConnectionRecord, Direction};

    fn finished(detail: &str) -> Finished {
        let at = |text: &str| text.parse().unwrap();
        let mut record = ConnectionRecord::new(Direction::Inbound, at("10.0.0.1:1"), at("10.0.0.2:80"));
        (record.sent, record.received) = (7, 9);
        record.detail = Some(detail.into());
        Finished { record, ended: SystemTime::UNIX_EPOCH, lasted: Duration::from_millis(3) }
    }

    fn line(style: Style, detail: &str) -> String {
        let mut out = String::new();
        write_line(style, &mut out, &finished(detail));
        out
    }

    #[test]
    fn both_styles_have_the_same_fields_in_the_same_order() {
        let text = "access time=1970-01-01T00:00:00.000Z verdict=ok direction=inbound src.addr=10.0.0.1:1 \
                    dst.addr=10.0.0.2:80 security=plaintext error=\"a b\" bytes_sent=9 bytes_recv=7 duration_ms=3\n";
        assert_eq!(line(Style::Text, "a b"), text);
        let json = r#"{"time":"1970-01-01T00:00:00.000Z","verdict":"ok","direction":"inbound","src.addr":"10.0.0.1:1","#
            .to_owned()
            + r#""dst.addr":"10.0.0.2:80","security":"plaintext","error":"a b","bytes_sent":9,"bytes_recv":7,"#
            + r#""duration_ms":3,"target":"access"}"# + "\n";
        assert_eq!(line(Style::Json, "a b"), json);
    }

    proptest! {
        /// Details hold what peers say.
        #[test]
        fn no_words_of_a_peer_break_a_line(detail in "[^\u{0}]{1,40}") {
            let json = line(Style::Json, &detail);
            prop_assert_eq!(json.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["error"].as_str(), Some(detail.as_str()));
            let text = line(Style::Text, &detail);
            prop_assert_eq!(text.matches('\n').count(), 1);
            let error = text.split_once(" error=").unwrap().1.rsplit_once(" bytes_sent=").unwrap().0;
            let quoted = error.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            prop_assert!(quoted.is_some() || error == detail, "{}", text);
        }
    }
}
