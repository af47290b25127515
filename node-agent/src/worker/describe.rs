//! What a tunnel's two ends say of the workloads for telemetry: headers out of the mesh's view, never decided from.

use std::net::SocketAddr;

use weft_hbone::connect::WorkloadKind;
use weft_hbone::{Baggage, Forwarded};
use weft_model::workload::{Workload, WorkloadType};

/// The `baggage` of a workload.
#[must_use]
pub fn baggage_of(workload: &Workload) -> String {
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let kind = match workload.workload_type {
        WorkloadType::Deployment => WorkloadKind::Deployment,
        WorkloadType::CronJob => WorkloadKind::CronJob,
        WorkloadType::Pod => WorkloadKind::Pod,
        WorkloadType::Job => WorkloadKind::Job,
    };
    let baggage = Baggage {
        cluster: text(&workload.cluster),
        namespace: text(&workload.namespace),
        workload: text(&workload.workload_name).map(|name| (kind, name)),
        service_name: text(&workload.canonical_name),
        service_version: text(&workload.canonical_revision),
        region: text(&workload.locality.region),
        zone: text(&workload.locality.zone),
    };
    baggage.to_string()
}

/// The `forwarded` of a captured connection: its own socket, and the service that it asked for.
#[must_use]
pub fn forwarded_of(client: SocketAddr, host: Option<&str>) -> String {
    Forwarded { client: Some(client), host: host.map(str::to_owned) }.to_string()
}
