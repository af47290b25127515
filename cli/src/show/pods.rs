//! `weft pods`.

use std::process::ExitCode;

use weft_model::view::PodRow;

use crate::admin;
use crate::arguments::{Format, ShowOptions};
use crate::output::{self, Field, Tone};

/// Prints the pods.
pub fn run(options: &ShowOptions) -> anyhow::Result<ExitCode> {
    let mut rows: Vec<PodRow> = admin::section(&options.admin, "pods")?;
    rows.retain(|row| options.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace));
    match options.output {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let header = ["namespace", "pod", "node", "mesh", "ready", "addresses", "identity", "note"];
            output::table(&header, rows.iter().map(row).collect(), "No pods.")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(pod: &PodRow) -> Vec<Field> {
    let mesh = match (pod.in_mesh, pod.captured_here) {
        (true, Some(false)) => Field::toned("not captured", Tone::Bad),
        (true, _) => Field::toned("encrypted", Tone::Good),
        (false, Some(true)) => Field::toned("captured", Tone::Warn),
        (false, _) => Field::from("-"),
    };
    let ready = if pod.healthy { Field::from("yes") } else { Field::toned("no", Tone::Warn) };
    vec![
        (&*pod.namespace).into(),
        (&*pod.name).into(),
        (&*pod.node).into(),
        mesh,
        ready,
        pod.addresses.join(" ").into(),
        output::identity(&pod.identity).into(),
        pod.note.clone().unwrap_or_default().into(),
    ]
}
