//! `weft policies`.

use std::process::ExitCode;

use weft_model::view::PolicyRow;

use crate::arguments::{Format, ShowOptions};
use crate::output::{self, Field, Tone};
use crate::programs::ask::{Said, Whom, ask};

/// Prints the policies.
pub fn run(options: &ShowOptions) -> anyhow::Result<ExitCode> {
    let mut answers = ask::<Vec<PolicyRow>>(&options.programs, Whom::ControlPlane, "policies")?;
    let mut rows = answers.take_rows();
    rows.retain(|row| options.namespace.as_ref().is_none_or(|namespace| *namespace == row.value.namespace));
    match options.output {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let header = ["namespace", "policy", "action", "mode", "scope", "workloads", "rules"];
            output::table(
                &header,
                rows.iter().map(|Said { value, .. }| row(value)).collect(),
                "No policies: whoever is in the mesh may speak to anybody.",
            )?;
        }
    }
    Ok(answers.end(ExitCode::SUCCESS))
}

fn row(policy: &PolicyRow) -> Vec<Field> {
    let rules = match (policy.rules.is_empty(), &*policy.action) {
        (true, "Allow") => "none: nobody is allowed".to_owned(),
        (true, _) => "none: never matches".to_owned(),
        (false, _) => policy.rules.join("; or "),
    };
    let mode = if policy.mode == "Shadow" { Field::toned("Shadow", Tone::Warn) } else { (&*policy.mode).into() };
    let workloads = match policy.workloads {
        0 => Field::toned("0", Tone::Warn),
        count => count.to_string().into(),
    };
    let action = if policy.action == "Deny" { Field::toned("Deny", Tone::Bad) } else { (&*policy.action).into() };
    vec![
        (&*policy.namespace).into(),
        (&*policy.name).into(),
        action,
        mode,
        (&*policy.scope).into(),
        workloads,
        rules.into(),
    ]
}
