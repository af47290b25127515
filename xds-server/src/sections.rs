//! The admin sections behind `weft pods`, `services`, `policies` and `config` when they ask the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};
use weft_identity::signer::Signer;
use weft_manifest::Outcome;
use weft_model::view::{self, ConfigView, Finding, RejectedRow, SubscriberRow, TypeRow};
use weft_runtime::admin::Admin;
use weft_runtime::shared::Reader;
use weft_wire::convert::ResourceType;
use weft_wire::delta::SessionStatus;

use crate::config::Arguments;
use crate::pipeline::Served;
use crate::serve::{NodeTokens, Nodes, StreamView};
use crate::source;

/// What the sections read.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) served: Served,
    pub(crate) outcomes: Reader<Option<Arc<Outcome>>>,
    pub(crate) nodes: Nodes,
    pub(crate) tokens: Option<Arc<NodeTokens>>,
    pub(crate) signer: Reader<Signer>,
    pub(crate) settings: BTreeMap<String, String>,
}

/// Registers the sections.
pub(crate) fn register(admin: Admin, sources: &Sources) -> Admin {
    let of = |show: fn(&Sources) -> Value| {
        let sources = sources.clone();
        move || show(&sources)
    };
    admin
        .section("pods", of(|sources| value(&sources.served.mesh.read(view::pods))))
        .section("services", of(|sources| value(&sources.served.mesh.read(view::services))))
        .section("policies", of(|sources| value(&sources.served.mesh.read(view::policies))))
        .section("nodes", of(|sources| value(&sources.nodes.all())))
        .section("findings", of(|sources| source::findings(&sources.outcomes)))
        .section("config", of(|sources| value(&config(sources))))
}

fn value<T: Serialize>(rows: &T) -> Value {
    serde_json::to_value(rows).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

/// The settings that are worth showing; no secret is among them.
pub(crate) fn shown_settings(arguments: &Arguments) -> BTreeMap<String, String> {
    let node_tokens = arguments.node_tokens.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let shown = [
        ("source", arguments.source.to_string()),
        ("state directory", arguments.state_dir.display().to_string()),
        ("node tokens", node_tokens),
        ("listen", arguments.listen.to_string()),
        ("cluster", arguments.cluster.clone()),
        ("network", arguments.network.clone()),
        ("trust domain", arguments.trust_domain.clone()),
        ("certificate life", humantime::format_duration(arguments.certificate_life).to_string()),
    ];
    shown.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn config(sources: &Sources) -> ConfigView {
    let mut findings = object_findings(sources);
    findings.extend(sources.tokens.iter().flat_map(|tokens| tokens.findings()).map(|finding| Finding {
        origin: format!("{}:{}", sources.settings["node tokens"], finding.line),
        object: "node token".to_owned(),
        field: String::new(),
        message: finding.problem,
    }));
    ConfigView {
        program: "weft-xds-server".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: String::new(),
        settings: sources.settings.clone(),
        signs_until: sources.signer.read(signs_until),
        control_plane: None,
        subscribers: subscribers(sources),
        findings,
    }
}

/// When what signs certificates ends, in seconds since 1970.
fn signs_until(signer: &Signer) -> Option<i64> {
    let end = signer.validity().not_after.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(end.as_secs()).ok()
}

fn object_findings(sources: &Sources) -> Vec<Finding> {
    let outcome = sources.outcomes.load();
    let Some(outcome) = outcome.as_ref() else { return Vec::new() };
    let row = |finding: &weft_manifest::Finding| Finding {
        origin: finding.place.to_string(),
        object: finding.object.clone(),
        field: finding.field.clone(),
        message: finding.problem.clone(),
    };
    outcome.findings.iter().filter(|finding| finding.needs_action()).map(row).collect()
}

fn subscribers(sources: &Sources) -> Vec<SubscriberRow> {
    let catalog = sources.served.catalog.load();
    let wanted = |kind| catalog.as_ref().as_ref().map(|catalog| catalog.len(kind));
    let nodes = sources.nodes.all();
    let streams = nodes.iter().flat_map(|(node, status)| status.streams.iter().map(move |stream| (node, stream)));
    streams.map(|(node, stream)| subscriber(node, stream, wanted)).collect()
}

fn subscriber(node: &str, stream: &StreamView, wanted: impl Fn(ResourceType) -> Option<usize>) -> SubscriberRow {
    let types: Vec<TypeRow> =
        stream.types.iter().map(|(kind, status)| type_row(*kind, status, wanted(*kind))).collect();
    let settled =
        |status: &SessionStatus| status.unacknowledged == 0 && status.pending == 0 && status.refused.is_empty();
    let connected = SystemTime::now().duration_since(stream.since).unwrap_or_default();
    SubscriberRow {
        node: node.to_owned(),
        agent: stream.client.clone(),
        connected_seconds: connected.as_secs(),
        in_sync: stream.types.values().all(settled),
        types,
    }
}

fn type_row(kind: ResourceType, status: &SessionStatus, wanted: Option<usize>) -> TypeRow {
    let rejected =
        |one: &weft_wire::delta::Refused| RejectedRow { name: one.name.to_string(), error: one.reason.clone() };
    TypeRow {
        name: kind.url().rsplit('.').next().unwrap_or_default().to_owned(),
        held: status.held,
        wanted: wanted.filter(|_| status.wildcard),
        rejected: status.refused.iter().map(rejected).collect(),
    }
}
