//! What is wrong with a document: where, which object, which field, and what was expected instead.
//!
//! The server logs and counts these, `weft lint` prints them; both get them from the same code, so that what lint accepts
//! is what the server takes.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Where an object or a fault stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The file, as its directory was given.
    pub file: Arc<str>,
    /// Which document of the file, counted from 1; 0 when the fault is about the whole file.
    pub document: usize,
    /// Which item of a List, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// The line of the file, counted from 1: of the fault where the parser says it, else where the document begins.
    pub line: usize,
}

impl Place {
    /// A whole file.
    #[must_use]
    pub fn whole_file(file: &str) -> Self {
        Self { file: file.into(), document: 0, item: None, line: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.document == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{} (document {}", self.file, self.line, self.document)?;
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        f.write_str(")")
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document is refused (its last good version stays in force), or a part of it does not count.
    Error,
    /// The document is taken, but it hardly means what its author wants.
    Warning,
    /// Nothing is wrong; said so that nothing is silently skipped (a kind that is none of ours).
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing that somebody should know about a document. Sorts by place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// How bad.
    pub severity: Severity,
    /// The object as `Kind namespace/name`, as far as it can be told; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The path of the field, for example `spec.ports[0].targetPort`; empty for the whole document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl Finding {
    /// Whether somebody has to do something about it: all but notes.
    #[must_use]
    pub fn needs_action(&self) -> bool {
        self.severity != Severity::Note
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place, self.severity)?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.problem)
    }
}
