//! What the capture half says of itself, as metrics: it has no port of its own.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use weft_runtime::shared::Reader;

use crate::pods::UncapturedReason;
use crate::worker::served::Served;

/// Shows the condition that came last.
#[derive(Debug)]
pub(super) struct CaptureMetrics(pub(super) Reader<Served>);

impl Collector for CaptureMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let served = self.0.load();
        let condition = served.condition();
        let help = "Selected pods of this node that are not captured";
        let mut metric = encoder.encode_descriptor("weft_uncaptured_pods", help, None, MetricType::Gauge)?;
        // Those that are 0 as well: an alert must see that it is over.
        for reason in UncapturedReason::ALL {
            let count = condition.counts.get(&reason).copied().unwrap_or_default();
            ConstGauge::new(i64::from(count)).encode(metric.encode_family(&[("reason", reason.word())])?)?;
        }
        let help = "Rules, routes or listeners of pods that somebody had changed and the capture half has repaired";
        let kind = <ConstCounter<u64> as TypedMetric>::TYPE;
        let repairs = encoder.encode_descriptor("weft_capture_repairs", help, None, kind)?;
        ConstCounter::new(condition.repairs).encode(repairs)
    }
}

#[cfg(test)]
mod tests {
    use weft_runtime::metrics::Registry;

    use super::CaptureMetrics;
    use crate::dispatch::nobody_served;
    use crate::handover::Condition;
    use crate::pods::{Uncaptured, UncapturedReason};

    #[test]
    fn every_reason_is_shown_and_those_that_are_over_too() {
        let registry = Registry::new("test", "0");
        let (mut writer, served) = nobody_served();
        registry.register(|registry| registry.register_collector(Box::new(CaptureMetrics(served))));
        let reason = UncapturedReason::HbonePortTaken;
        let pod = Uncaptured { uid: "a".into(), namespace: "shop".into(), name: "a".into(), reason, closed: true };
        writer.update(|served| served.in_condition(Condition::new([pod.clone(), pod.clone()], 3)));
        let text = registry.encode();
        assert!(text.contains("weft_uncaptured_pods{reason=\"hbone-port-taken\"} 2\n"), "{text}");
        assert!(text.contains("weft_uncaptured_pods{reason=\"rules\"} 0\n"), "{text}");
        assert!(text.contains("weft_capture_repairs_total 3\n"), "{text}");
    }
}
