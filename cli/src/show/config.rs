//! `weft config`: what is wanted, and what is in force.

use std::process::ExitCode;

use weft_model::view::{ConfigView, SubscriberRow, TypeRow};

use crate::arguments::{Format, ShowOptions};
use crate::output::{self, Field, Tone};
use crate::programs::ask::{Said, Whom, ask};

/// Prints settings, synchronisation and findings. The exit code is 1 when something is not in force.
pub fn run(options: &ShowOptions) -> anyhow::Result<ExitCode> {
    let answers = ask::<ConfigView>(&options.programs, Whom::Replicas, "config")?;
    match (options.output, answers.several, &*answers.said) {
        (Format::Json, false, [one]) => output::json(one)?,
        (Format::Json, _, all) => output::json(&all)?,
        (Format::Table, _, all) => all.iter().try_for_each(print)?,
    }
    let good = answers.said.iter().all(|said| is_in_force(&said.value));
    Ok(answers.end(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

fn is_in_force(view: &ConfigView) -> bool {
    let no_rejects = |types: &[TypeRow]| types.iter().all(|row| row.rejected.is_empty());
    view.findings.is_empty()
        && view.control_plane.as_ref().is_none_or(|plane| plane.connected && no_rejects(&plane.types))
        && view.subscribers.iter().all(|row| row.in_sync && no_rejects(&row.types))
}

fn print(Said { value: view, pod, .. }: &Said<ConfigView>) -> anyhow::Result<()> {
    let node = if view.node.is_empty() { String::new() } else { format!(" on node {}", view.node) };
    let pod = pod.as_ref().map_or_else(String::new, |pod| format!(", pod {pod}"));
    output::line(&format!("{} {}{node}{pod}", view.program, view.version))?;
    let settings = view.settings.iter().map(|(name, value)| vec![(&**name).into(), (&**value).into()]).collect();
    output::line("")?;
    output::table(&["setting", "value"], settings, "No settings.")?;
    if let Some(plane) = &view.control_plane {
        let state = if plane.connected { "connected" } else { "NOT connected (serving what is held)" };
        output::line(&format!("\ncontrol plane {}: {state}", plane.address))?;
        if let Some(error) = &plane.last_error {
            output::line(&format!("  last error: {error}"))?;
        }
        types(&plane.types)?;
    }
    if !view.subscribers.is_empty() {
        output::line("")?;
        let header = ["node", "agent", "connected for", "in sync", "held/wanted"];
        output::table(&header, view.subscribers.iter().map(subscriber).collect(), "")?;
        for row in &view.subscribers {
            rejected(&row.node, &row.types)?;
        }
    }
    if !view.findings.is_empty() {
        output::line("\nNot in force:")?;
        let rows = view.findings.iter().map(|finding| {
            vec![
                (&*finding.origin).into(),
                (&*finding.object).into(),
                (&*finding.field).into(),
                Field::toned(&*finding.message, Tone::Bad),
            ]
        });
        output::table(&["where", "object", "field", "finding"], rows.collect(), "")?;
    }
    Ok(())
}

fn types(rows: &[TypeRow]) -> anyhow::Result<()> {
    for row in rows {
        output::line(&format!("  {}: {} in force, {} rejected", row.name, row.held, row.rejected.len()))?;
    }
    rejected("this node", rows)
}

fn rejected(who: &str, rows: &[TypeRow]) -> anyhow::Result<()> {
    for reject in rows.iter().flat_map(|row| &row.rejected) {
        output::line(&format!("  {who} rejected {}: {}", reject.name, reject.error))?;
    }
    Ok(())
}

fn subscriber(row: &SubscriberRow) -> Vec<Field> {
    let counts = row.types.iter().map(|kind| match kind.wanted {
        Some(wanted) => format!("{} {}/{wanted}", kind.name, kind.held),
        None => format!("{} {}", kind.name, kind.held),
    });
    let sync = if row.in_sync { Field::toned("yes", Tone::Good) } else { Field::toned("no", Tone::Bad) };
    vec![
        (&*row.node).into(),
        (&*row.agent).into(),
        output::duration(row.connected_seconds.saturating_mul(1000)).into(),
        sync,
        counts.collect::<Vec<_>>().join(", ").into(),
    ]
}
