//! The admin sections behind `weft pods`, `services`, `policies`, `connections`, `certs` and `config`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use weft_identity::Store;
use weft_model::Mesh;
use weft_model::view::{self, ConfigView, ConnectionRow, ControlPlaneView, PodRow, RejectedRow, ServiceRow, TypeRow};
use weft_runtime::admin::Admin;
use weft_runtime::shared::Reader;
use weft_wire::convert::ResourceType;
use weft_wire::delta::{StreamStatus, TypeStatus};

use super::ejections::mark;
use crate::node_info::NodeInfo;
use crate::pods::Uncaptured;
use crate::telemetry::Refusals;
use crate::worker::health::EndpointHealth;
use crate::worker::run::WorkerCommand;
use crate::worker::served::Served;

/// What the sections read.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) node: Arc<NodeInfo>,
    pub(super) mesh: Reader<Mesh>,
    pub(super) served: Reader<Served>,
    pub(super) store: Store,
    pub(super) stream: Reader<StreamStatus>,
    pub(super) refusals: Refusals,
    pub(super) health: EndpointHealth,
    pub(super) workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) control_plane: String,
}

/// Registers the sections.
pub(super) fn register(admin: Admin, sources: &Sources) -> Admin {
    let of = |show: fn(&Sources) -> Value| {
        let sources = sources.clone();
        move || show(&sources)
    };
    let live = sources.clone();
    admin
        .section("pods", of(|sources| value(&pods(sources))))
        // For whoever asks every agent: the others' pods each of them says itself.
        .section("pods-here", of(|sources| value(&pods_here(sources))))
        .section("services", of(|sources| value(&services(sources))))
        .section("ejections", of(|sources| value(&sources.health.rows())))
        .section("policies", of(|sources| value(&sources.mesh.read(view::policies))))
        .section("certs", of(|sources| value(&sources.store.rows())))
        .section("refusals", of(|sources| value(&sources.refusals.rows())))
        .section("config", of(|sources| value(&config(sources))))
        .section_async("connections", move || connections(live.workers.clone()))
}

fn value<T: Serialize>(rows: &T) -> Value {
    serde_json::to_value(rows).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

fn services(sources: &Sources) -> Vec<ServiceRow> {
    let mut rows = sources.mesh.read(view::services);
    mark(&mut rows, &sources.health.rows());
    rows
}

fn pods(sources: &Sources) -> Vec<PodRow> {
    let served = sources.served.load();
    let here: BTreeMap<(String, String), bool> =
        served.pods().map(|pod| ((pod.info.namespace.clone(), pod.info.name.clone()), pod.leaving)).collect();
    let mut rows = sources.mesh.read(view::pods);
    for row in rows.iter_mut().filter(|row| row.node == *sources.node.name) {
        let leaving = here.get(&(row.namespace.clone(), row.name.clone()));
        row.captured_here = Some(leaving.is_some());
        if leaving == Some(&true) {
            row.note = Some("leaving the mesh: live connections end in their own time".to_owned());
        }
        let is_it = |pod: &&Uncaptured| (&pod.namespace, &pod.name) == (&row.namespace, &row.name);
        if let Some(pod) = served.condition().uncaptured.iter().find(is_it) {
            let left = if pod.closed { "closed until it can be captured" } else { "IN PLAINTEXT" };
            row.note = Some(format!("selected but not captured ({}): {left}", pod.reason));
        }
    }
    rows
}

/// Those of this node alone.
fn pods_here(sources: &Sources) -> Vec<PodRow> {
    let mut rows = pods(sources);
    rows.retain(|row| row.captured_here.is_some());
    rows
}

async fn connections(workers: Vec<mpsc::UnboundedSender<WorkerCommand>>) -> Value {
    let mut rows: Vec<ConnectionRow> = Vec::new();
    for worker in workers {
        let (answer, answered) = oneshot::channel();
        if worker.send(WorkerCommand::Connections(answer)).is_ok() {
            // A worker that ended has no connections.
            rows.extend(answered.await.unwrap_or_default());
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.age_ms));
    value(&rows)
}

fn config(sources: &Sources) -> ConfigView {
    let status = sources.stream.load();
    let types = status.types.iter().map(|(kind, status)| type_row(*kind, status)).collect();
    ConfigView {
        program: "weft-node-agent".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: sources.node.name.to_string(),
        settings: sources.settings.clone(),
        signs_until: None,
        control_plane: Some(ControlPlaneView {
            address: sources.control_plane.clone(),
            connected: status.connected,
            last_error: status.last_error.clone(),
            types,
        }),
        subscribers: Vec::new(),
        findings: Vec::new(),
    }
}

fn type_row(kind: ResourceType, status: &TypeStatus) -> TypeRow {
    let rejected = |one: &weft_wire::delta::Rejected| RejectedRow { name: one.name.clone(), error: one.reason.clone() };
    TypeRow {
        name: kind.url().rsplit('.').next().unwrap_or_default().to_owned(),
        held: status.held,
        wanted: None,
        rejected: status.rejected.iter().map(rejected).collect(),
    }
}
