//! What a source says of itself, whichever it is: findings in the log, on the admin page `findings` and in the metrics.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use weft_manifest::{Finding, Outcome, Severity};
use weft_runtime::metrics::Registry;
use weft_runtime::shared::Reader;

/// Shows each state once.
#[derive(Debug)]
pub struct Shown {
    metrics: Metrics,
    before: Vec<Finding>,
}

impl Shown {
    /// Registers the metrics.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self { metrics: Metrics::new(registry), before: Vec::new() }
    }

    /// Logs and counts a new state.
    pub fn show(&mut self, outcome: &Outcome) {
        log(&self.before, outcome);
        self.metrics.count(outcome);
        self.before.clone_from(&outcome.findings);
    }
}

/// The admin section `findings`: what is wrong with the files, and which objects are in force in an older version.
#[must_use]
pub fn findings(outcomes: &Reader<Option<Arc<Outcome>>>) -> Value {
    match outcomes.load().as_ref() {
        None => Value::Null,
        Some(outcome) => json!({
            "objects": outcome.objects.len(),
            "findings": outcome.findings,
            "lastGoodVersion": outcome.kept.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    }
}

/// Logs what is new and what is gone, not everything again and again.
fn log(before: &[Finding], outcome: &Outcome) {
    for finding in outcome.findings.iter().filter(|finding| !before.contains(finding)) {
        match finding.severity {
            Severity::Error => tracing::error!(%finding, "configuration"),
            Severity::Warning => tracing::warn!(%finding, "configuration"),
            Severity::Note => tracing::info!(%finding, "configuration"),
        }
    }
    for finding in before.iter().filter(|finding| finding.needs_action() && !outcome.findings.contains(finding)) {
        tracing::info!(%finding, "configuration: no longer so");
    }
    tracing::info!(objects = outcome.objects.len(), findings = outcome.findings.len(), "configuration read");
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeverityLabel {
    severity: String,
}

#[derive(Debug)]
struct Metrics {
    findings: Family<SeverityLabel, Gauge>,
    kept: Gauge,
    objects: Gauge,
    changes: Counter,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let metrics = Self {
            findings: Family::default(),
            kept: Gauge::default(),
            objects: Gauge::default(),
            changes: Counter::default(),
        };
        registry.register(|registry| {
            let help = "Findings about the configuration at present, by severity";
            registry.register("weft_config_findings", help, metrics.findings.clone());
            let help = "Objects of which an older version is in force than the files say";
            registry.register("weft_config_objects_kept", help, metrics.kept.clone());
            registry.register("weft_config_objects", "Objects in force", metrics.objects.clone());
            registry.register("weft_config_changes", "Changes of the configuration taken in", metrics.changes.clone());
        });
        metrics
    }

    fn count(&self, outcome: &Outcome) {
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let count = outcome.findings.iter().filter(|finding| finding.severity == severity).count();
            let label = SeverityLabel { severity: severity.to_string() };
            self.findings.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.kept.set(i64::try_from(outcome.kept.len()).unwrap_or(i64::MAX));
        self.objects.set(i64::try_from(outcome.objects.len()).unwrap_or(i64::MAX));
        self.changes.inc();
    }
}
