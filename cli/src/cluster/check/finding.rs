//! One thing that was looked at, and whether it is as it should be.

use serde::Serialize;

/// How bad it is. The exit code is 1 where something is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, and nothing to do.
    Note,
    /// Works, and will not for ever, or not in full.
    Warning,
    /// Does not work.
    Error,
}

/// One thing that was looked at. Scripts read these fields (`-o json`): they stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// `control plane`, `node NAME`, `pod NAMESPACE/NAME`, ...
    #[serde(rename = "where")]
    pub place: String,
    /// What was found.
    pub finding: String,
    /// What to do, or where to look next; absent where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(place: &str, finding: impl Into<String>) -> Self {
        Self { level: Level::Ok, place: place.to_owned(), finding: finding.into(), fix: None }
    }

    /// Worth knowing.
    pub fn note(place: &str, finding: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::ok(place, finding) }
    }

    /// Not for ever, or not in full.
    pub fn warning(place: &str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warning, fix: Some(fix.into()), ..Self::ok(place, finding) }
    }

    /// Does not work.
    pub fn error(place: &str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Error, fix: Some(fix.into()), ..Self::ok(place, finding) }
    }
}

/// Whether none is an error.
#[must_use]
pub fn is_good(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level < Level::Error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Finding, is_good};

    #[test]
    fn what_scripts_read() {
        let (good, bad) = (Finding::ok("node a", "ready"), Finding::error("node b", "no agent", "look"));
        assert_eq!(
            serde_json::to_value(&good).unwrap(),
            json!({ "level": "ok", "where": "node a", "finding": "ready" })
        );
        assert_eq!(
            serde_json::to_value(&bad).unwrap(),
            json!({ "level": "error", "where": "node b", "finding": "no agent", "fix": "look" })
        );
        assert!(is_good(&[good.clone(), Finding::warning("a", "old", "upgrade")]) && !is_good(&[good, bad]));
    }
}
