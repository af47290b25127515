//! The counters as Prometheus sees them: Istio's names and labels where they exist, so
//! that its dashboards work unchanged, and Weft's own for what Istio has no word for. Listed in `docs/metrics.md`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::edge::{EdgeKey, Party};
use super::record::Direction;
use super::worker::{EdgeTotal, Telemetry, Total};

type Labels = Vec<(&'static str, String)>;
/// Name, help, and which of an edge's counts it is.
type EdgeMetric = (&'static str, &'static str, fn(&EdgeTotal) -> u64);

/// Without `_total`: the encoder adds it.
const EDGE_METRICS: [EdgeMetric; 5] = [
    ("istio_tcp_connections_opened", "Connections set up", |counts| counts.opened),
    ("istio_tcp_connections_closed", "Connections that ended", |counts| counts.closed),
    ("istio_tcp_connections_failed", "Connections refused or broken", |counts| counts.failed),
    ("istio_tcp_sent_bytes", "Bytes from client to server", |counts| counts.sent),
    ("istio_tcp_received_bytes", "Bytes from server to client", |counts| counts.received),
];

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let total = self.total();
        for (name, help, count) in EDGE_METRICS {
            let edges = total.edges.iter().filter(|(_, counts)| count(counts) > 0);
            let rows = edges.map(|(key, counts)| (labels(key), count(counts)));
            counters(&mut encoder, name, help, rows)?;
        }
        open_sockets(&mut encoder, &total)?;
        let refusals = total.refusals.iter().map(|((direction, reason), count)| {
            (vec![("direction", direction.word().to_owned()), ("reason", reason.code().to_owned())], *count)
        });
        counters(&mut encoder, "weft_refusals", "Connections refused or ended, by reason code", refusals)?;
        let shadow = total.shadow.iter().map(|((policy, reason), count)| {
            (vec![("policy", policy.to_string()), ("reason", reason.code().to_owned())], *count)
        });
        counters(&mut encoder, "weft_shadow_denials", "Connections that a policy in shadow mode would refuse", shadow)?;
        let dropped = self.dropped();
        let help = "Access-log lines dropped because the writer fell behind";
        let kind = <ConstCounter<u64> as TypedMetric>::TYPE;
        ConstCounter::new(dropped).encode(encoder.encode_descriptor("weft_access_log_dropped", help, None, kind)?)
    }
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Labels, u64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, <ConstCounter<u64> as TypedMetric>::TYPE)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn open_sockets(encoder: &mut DescriptorEncoder<'_>, total: &Total) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor("istio_tcp_sockets_open", "Connections now", None, MetricType::Gauge)?;
    for direction in [Direction::Outbound, Direction::Inbound] {
        let edges = total.edges.iter().filter(|(key, _)| key.direction == direction);
        let open: u64 = edges.map(|(_, counts)| counts.opened.saturating_sub(counts.closed)).sum();
        let labels = vec![("reporter", direction.reporter())];
        ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Istio's common labels, in its order; what is not known is `unknown`.
fn labels(key: &EdgeKey) -> Labels {
    let mut labels = vec![("reporter", key.direction.reporter().to_owned())];
    labels.extend(party_labels(SOURCE, key.source.as_ref()));
    labels.extend(party_labels(DESTINATION, key.destination.as_ref()));
    let service = key.service.as_ref();
    labels.extend([
        ("destination_service", known(service.map(|(key, _)| &*key.hostname))),
        ("destination_service_name", known(service.map(|(_, name)| &**name))),
        ("destination_service_namespace", known(service.map(|(key, _)| &*key.namespace))),
        ("request_protocol", "tcp".to_owned()),
        ("connection_security_policy", key.security.istio_label().to_owned()),
        ("response_flags", key.reason.map_or("-", |reason| reason.response_flag()).to_owned()),
    ]);
    labels
}

const SOURCE: [&str; 10] = [
    "source_workload",
    "source_workload_namespace",
    "source_canonical_service",
    "source_canonical_revision",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_region",
    "source_zone",
];
const DESTINATION: [&str; 10] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_region",
    "destination_zone",
];

fn party_labels(names: [&'static str; 10], party: Option<&Party>) -> impl Iterator<Item = (&'static str, String)> {
    let text = |field: fn(&Party) -> &str| known(party.map(field));
    let principal = party.and_then(|party| party.principal.as_ref()).map(ToString::to_string);
    let values = [
        text(|party| &party.workload),
        text(|party| &party.namespace),
        text(|party| &party.canonical_name),
        text(|party| &party.canonical_revision),
        principal.unwrap_or_else(|| UNKNOWN.to_owned()),
        text(|party| &party.canonical_name),
        text(|party| &party.canonical_revision),
        text(|party| &party.cluster),
        text(|party| &party.region),
        text(|party| &party.zone),
    ];
    names.into_iter().zip(values)
}

const UNKNOWN: &str = "unknown";

fn known(value: Option<&str>) -> String {
    value.filter(|text| !text.is_empty()).unwrap_or(UNKNOWN).to_owned()
}
