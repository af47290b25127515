//! What the agent says of its control plane: whether it is there, since when it is not, and what it refused of it.

use std::fmt::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use weft_runtime::shared::Reader;
use weft_wire::delta::{StreamStatus, TypeStatus};

/// Reads the stream's status when it is asked.
#[derive(Debug)]
pub(super) struct PlaneMetrics(pub(super) Reader<StreamStatus>);

/// Name, help, and which number of a type it is.
type TypeMetric = (&'static str, &'static str, fn(&TypeStatus) -> u64);

const GAUGES: [TypeMetric; 3] = [
    ("weft_xds_held", "Resources held", |one| one.held as u64),
    ("weft_xds_rejected", "Resources that the control plane offers and that cannot be read", |one| {
        one.rejected.len() as u64
    }),
    ("weft_xds_doubted", "Resources that a first answer would take away and that stay until it is confirmed", |one| {
        one.doubted as u64
    }),
];

const COUNTERS: [TypeMetric; 2] = [
    ("weft_xds_responses", "Responses received", |one| one.responses),
    ("weft_xds_nacks", "Responses that were refused in part", |one| one.nacks),
];

impl Collector for PlaneMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let status = self.0.load();
        let help = "Whether a stream to the control plane is open and answered";
        gauge(&mut encoder, "weft_control_plane_connected", help, i64::from(status.connected))?;
        if let Some(contact) = last_contact(&status, SystemTime::now()) {
            let help = "Last contact with the control plane, seconds since 1970; now while a stream is open";
            gauge(&mut encoder, "weft_control_plane_last_contact_timestamp_seconds", help, contact)?;
        }
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?;
            for (kind, one) in &status.types {
                let value = i64::try_from(value(one)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(metric.encode_family(&[("type", kind.to_string())])?)?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, ConstCounter::<u64>::TYPE)?;
            for (kind, one) in &status.types {
                ConstCounter::new(value(one)).encode(metric.encode_family(&[("type", kind.to_string())])?)?;
            }
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Result<(), Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?)
}

/// None before the first contact. The HTTP/2 PINGs of an open stream find within 40 s that nobody is there.
fn last_contact(status: &StreamStatus, now: SystemTime) -> Option<i64> {
    let ever = status.connected || status.types.values().any(|one| one.responses > 0);
    let at = if status.connected { now } else { status.since };
    ever.then(|| at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)))
}
