//! `weft connections`, and `weft connections --denied`.

use std::process::ExitCode;

use weft_model::view::ConnectionRow;

use crate::arguments::{ConnectionOptions, Format};
use crate::output::{self, Field, Tone};
use crate::programs::ask::{Whom, ask};

/// Prints what is live, or what was refused lately.
pub fn run(options: &ConnectionOptions) -> anyhow::Result<ExitCode> {
    let section = if options.denied { "refusals" } else { "connections" };
    let mut answers = ask::<Vec<ConnectionRow>>(&options.show.programs, Whom::Agents, section)?;
    let mut rows = answers.take_rows();
    rows.retain(|row| options.show.namespace.as_ref().is_none_or(|namespace| touches(&row.value, namespace)));
    rows.retain(|row| options.show.programs.wants_pod(parties(&row.value)));
    rows.sort_by_key(|row| std::cmp::Reverse(row.value.age_ms));
    match (options.show.output, options.denied) {
        (Format::Json, _) => output::json(&rows)?,
        (Format::Table, false) => {
            let header =
                ["direction", "from", "to", "service", "security", "sent", "received", "age", "identity of from"];
            output::by_agent(
                &header,
                rows.iter().map(|row| (row.agent.as_deref(), live(&row.value))),
                "No live connections.",
            )?;
        }
        (Format::Table, true) => {
            let header = ["ago", "direction", "from", "to", "reason", "policy", "detail"];
            let fields = rows.iter().map(|row| (row.agent.as_deref(), refused(&row.value)));
            output::by_agent(&header, fields, "Nothing was refused lately.")?;
            if let Some(reason) = rows.last().and_then(|row| row.value.reason.as_deref()) {
                output::line(&format!("\nTry: weft why {reason}"))?;
            }
        }
    }
    Ok(answers.end(ExitCode::SUCCESS))
}

fn touches(row: &ConnectionRow, namespace: &str) -> bool {
    parties(row).filter_map(|name| name.split_once('/')).any(|(found, _)| found == namespace)
}

/// The workloads at its ends that are known, `namespace/name`.
fn parties(row: &ConnectionRow) -> impl Iterator<Item = &str> {
    row.source_workload.as_deref().into_iter().chain(row.destination_workload.as_deref())
}

/// `NAMESPACE/POD:PORT` of a known workload, else `IP:PORT`. Addresses of both stand in the JSON.
fn party(workload: Option<&str>, address: &str) -> String {
    match (workload, address.rsplit_once(':')) {
        (Some(name), Some((_, port))) => format!("{name}:{port}"),
        _ => address.to_owned(),
    }
}

/// `cart.shop.svc.cluster.local` as `cart.shop`: short enough for a line, and what people type.
fn service(row: &ConnectionRow) -> String {
    let name = row.service.as_deref().unwrap_or_default();
    name.split_once(".svc.").map_or(name, |(short, _domain)| short).to_owned()
}

fn live(row: &ConnectionRow) -> Vec<Field> {
    let security = match &*row.security {
        "plaintext" => Field::toned("plaintext", Tone::Warn),
        other => Field::toned(other, Tone::Good),
    };
    vec![
        (&*row.direction).into(),
        party(row.source_workload.as_deref(), &row.source).into(),
        party(row.destination_workload.as_deref(), &row.destination).into(),
        service(row).into(),
        security,
        output::bytes(row.sent).into(),
        output::bytes(row.received).into(),
        output::duration(row.age_ms).into(),
        output::identity(row.source_identity.as_deref().unwrap_or_default()).into(),
    ]
}

fn refused(row: &ConnectionRow) -> Vec<Field> {
    vec![
        output::duration(row.age_ms).into(),
        (&*row.direction).into(),
        party(row.source_workload.as_deref(), &row.source).into(),
        party(row.destination_workload.as_deref(), &row.destination).into(),
        Field::toned(row.reason.clone().unwrap_or_default(), Tone::Bad),
        row.policy.clone().unwrap_or_default().into(),
        row.detail.clone().unwrap_or_default().into(),
    ]
}
