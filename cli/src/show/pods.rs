//! `weft pods`.

use std::process::ExitCode;

use weft_model::view::PodRow;

use crate::arguments::{Format, ShowOptions};
use crate::output::{self, Field, Tone};
use crate::programs::ask::{Said, Whom, ask, asks_every_agent};

/// Prints the pods.
pub fn run(options: &ShowOptions) -> anyhow::Result<ExitCode> {
    // Of several agents each speaks of its own pods: the others' it only knows of.
    let section = if asks_every_agent(&options.programs) { "pods-here" } else { "pods" };
    let mut answers = ask::<Vec<PodRow>>(&options.programs, Whom::Agents, section)?;
    let rows = rows(answers.take_rows(), options);
    match options.output {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let header = ["namespace", "pod", "node", "mesh", "ready", "addresses", "identity", "note"];
            output::table(&header, rows.iter().map(row).collect(), "No pods.")?;
        }
    }
    Ok(answers.end(ExitCode::SUCCESS))
}

/// What is wanted of them.
fn rows(rows: Vec<Said<PodRow>>, options: &ShowOptions) -> Vec<PodRow> {
    let mut rows: Vec<PodRow> = rows.into_iter().map(|row| row.value).collect();
    rows.retain(|row| options.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace));
    rows.retain(|row| options.programs.wants_pod([&*format!("{}/{}", row.namespace, row.name)]));
    rows.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    rows
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
