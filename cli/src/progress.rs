//! What a command that changes a cluster does, step by step: lines for people, or one JSON object in each line for scripts.

use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use crate::format::Format;
use crate::output;

/// Says steps as they happen, and at last what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    format: Format,
    begun: Instant,
}

/// One line for scripts. They stay: fields may be added.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Line<'a> {
    /// On the way.
    Step { step: &'a str, subject: &'a str, message: &'a str },
    /// The last line.
    Outcome { outcome: &'a str, message: &'a str, seconds: f32 },
}

/// How it ended well.
#[derive(Debug)]
pub struct Done {
    /// In one word: `installed`, `enrolled`, ...
    pub outcome: &'static str,
    /// In words, for people: no line where it is empty.
    pub message: String,
}

impl Progress {
    /// Begins now.
    #[must_use]
    pub fn begin(format: Format) -> Self {
        Self { format, begun: Instant::now() }
    }

    /// When it began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// A step, in one word for scripts; what it was done to; the same in words for people.
    ///
    /// # Errors
    /// Standard output.
    pub fn step(&self, step: &str, subject: &str, message: &str) -> anyhow::Result<()> {
        match self.format {
            Format::Table => output::line(message),
            Format::Json => line(&Line::Step { step, subject, message }),
        }
    }

    /// What became of it. A failure is the last line as well, and goes on to standard error.
    ///
    /// # Errors
    /// The failure.
    pub fn end(&self, result: anyhow::Result<Done>) -> anyhow::Result<ExitCode> {
        let seconds = self.begun.elapsed().as_secs_f32();
        match (&result, self.format) {
            (Ok(done), Format::Table) if !done.message.is_empty() => output::line(&done.message)?,
            (Ok(done), Format::Json) => {
                line(&Line::Outcome { outcome: done.outcome, message: &done.message, seconds })?
            }
            (Err(error), Format::Json) => {
                let message = weft_runtime::failure::words(error.as_ref());
                line(&Line::Outcome { outcome: "failed", message: &message, seconds })?;
            }
            (_, Format::Table) => {}
        }
        result.map(|_done| ExitCode::SUCCESS)
    }
}

fn line(line: &Line<'_>) -> anyhow::Result<()> {
    output::line(&serde_json::to_string(line)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Line;

    #[test]
    fn what_scripts_read() {
        let step = Line::Step { step: "ready", subject: "DaemonSet a", message: "DaemonSet a: ready" };
        let expected = json!({ "step": "ready", "subject": "DaemonSet a", "message": "DaemonSet a: ready" });
        assert_eq!(serde_json::to_value(step).unwrap(), expected);
        let end = Line::Outcome { outcome: "installed", message: "done", seconds: 1.5 };
        assert_eq!(
            serde_json::to_value(end).unwrap(),
            json!({ "outcome": "installed", "message": "done", "seconds": 1.5 })
        );
    }
}
