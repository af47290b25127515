//! What is left out, as metrics and beside the endpoints of `weft services`. Listed in `docs/metrics.md`.

use std::collections::HashMap;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use weft_model::view::{EjectionRow, ServiceRow};

use crate::worker::health::EndpointHealth;

/// The kinds of `weft_model::ejection::Subject`.
const KINDS: [&str; 3] = ["endpoint", "tunnel", "node"];

/// Encodes what an [`EndpointHealth`] knows.
#[derive(Debug)]
pub(super) struct EjectionMetrics(pub(super) EndpointHealth);

impl Collector for EjectionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (rows, counts) = (self.0.rows(), self.0.counts());
        let mut gauge = encoder.encode_descriptor("weft_ejected", "Left out now, by kind", None, MetricType::Gauge)?;
        for kind in KINDS {
            let count = rows.iter().filter(|row| row.kind == kind).count();
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
                .encode(gauge.encode_family(&[("kind", kind)])?)?;
        }
        let counter = <ConstCounter<u64> as TypedMetric>::TYPE;
        let help = "Times that something was left out, by kind and cause";
        let mut ejections = encoder.encode_descriptor("weft_ejections", help, None, counter)?;
        for ((kind, cause), count) in counts.ejections {
            let labels = [("kind", kind), ("cause", cause)];
            ConstCounter::new(count).encode(ejections.encode_family(&labels)?)?;
        }
        let help = "Attempts to reach an endpoint that failed, by reason code";
        let mut attempts = encoder.encode_descriptor("weft_attempts_failed", help, None, counter)?;
        for (reason, count) in counts.attempts {
            ConstCounter::new(count).encode(attempts.encode_family(&[("reason", reason.code())])?)?;
        }
        Ok(())
    }
}

/// Writes beside each endpoint why it is left out, where it is.
pub(super) fn mark(services: &mut [ServiceRow], ejections: &[EjectionRow]) {
    if ejections.is_empty() {
        return;
    }
    let words = |row: &EjectionRow| format!("{} {}, for {} s", row.kind, row.cause, row.out_ms / 1000);
    let by_subject: HashMap<&str, &EjectionRow> = ejections.iter().map(|row| (&*row.subject, row)).collect();
    for service in services {
        for endpoint in &mut service.endpoints {
            let is_its = |row: &&EjectionRow| {
                row.kind == "endpoint"
                    && row.subject.rsplit_once(':').is_some_and(|(name, _)| name == endpoint.workload)
            };
            let of_port = ejections.iter().find(is_its);
            let of_hop = endpoint.addresses.iter().find_map(|address| {
                let hop = if address.contains(':') { format!("[{address}]:15008") } else { format!("{address}:15008") };
                by_subject.get(&*hop).copied()
            });
            endpoint.left_out = of_port.or(of_hop).map(words);
        }
    }
}
