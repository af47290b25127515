//! What the discovery and report services count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use weft_runtime::metrics::Registry;
use weft_wire::convert::ResourceType;

/// The type of a resource as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TypeLabel {
    r#type: String,
}

pub(super) fn of(kind: ResourceType) -> TypeLabel {
    TypeLabel { r#type: kind.to_string() }
}

/// Registered once, cloned to who counts.
#[derive(Debug, Clone, Default)]
pub struct ServeMetrics {
    pub(super) streams: Gauge,
    pub(super) responses: Family<TypeLabel, Counter>,
    pub(super) resources: Family<TypeLabel, Counter>,
    pub(super) acks: Family<TypeLabel, Counter>,
    pub(super) nacks: Family<TypeLabel, Counter>,
    pub(super) refused_streams: Counter,
    pub(super) reports: Counter,
    pub(super) captured: Gauge,
}

impl ServeMetrics {
    /// Registered.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|registry| {
            let this = &metrics;
            registry.register("weft_xds_streams", "Open discovery streams", this.streams.clone());
            let help = "Streams refused because their node had too many";
            registry.register("weft_xds_streams_refused", help, this.refused_streams.clone());
            registry.register("weft_xds_responses", "Responses sent", this.responses.clone());
            registry.register("weft_xds_resources", "Resources and removals sent", this.resources.clone());
            registry.register("weft_xds_acks", "Responses that nodes have in force", this.acks.clone());
            registry.register("weft_xds_nacks", "Responses that nodes refused in part", this.nacks.clone());
            registry.register("weft_reports", "Reports of captured pods taken", this.reports.clone());
            registry.register("weft_captured_pods", "Pods that nodes report as captured", this.captured.clone());
        });
        metrics
    }
}
