//! `weft services`.

use std::process::ExitCode;

use weft_model::view::{EndpointRow, ServiceRow};

use crate::arguments::{Format, ShowOptions};
use crate::output::{self, Field, Tone};
use crate::programs::ask::{Said, Whom, ask};

/// Prints the services.
pub fn run(options: &ShowOptions) -> anyhow::Result<ExitCode> {
    let mut answers = ask::<Vec<ServiceRow>>(&options.programs, Whom::ControlPlane, "services")?;
    let mut rows = answers.take_rows();
    rows.retain(|row| options.namespace.as_ref().is_none_or(|namespace| *namespace == row.value.namespace));
    match options.output {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let header = ["namespace", "service", "addresses", "ports", "ready", "encrypted", "endpoints", "waypoint"];
            output::table(&header, rows.iter().map(|Said { value, .. }| row(value)).collect(), "No services.")?;
        }
    }
    Ok(answers.end(ExitCode::SUCCESS))
}

fn row(service: &ServiceRow) -> Vec<Field> {
    let all = service.endpoints.len();
    let ready = service.endpoints.iter().filter(|endpoint| endpoint.healthy).count();
    let encrypted = service.endpoints.iter().filter(|endpoint| endpoint.in_mesh).count();
    let tone = |count: usize| match count {
        0 => Tone::Bad,
        count if count < all => Tone::Warn,
        _ => Tone::Good,
    };
    let name = |endpoint: &EndpointRow| match &endpoint.left_out {
        Some(why) => format!("{} ({why})", endpoint.workload),
        None => endpoint.workload.clone(),
    };
    let names: Vec<String> = service.endpoints.iter().map(name).collect();
    let addresses = if service.addresses.is_empty() { "headless".to_owned() } else { service.addresses.join(" ") };
    vec![
        (&*service.namespace).into(),
        (&*service.name).into(),
        addresses.into(),
        service.ports.join(" ").into(),
        Field::toned(format!("{ready}/{all}"), tone(ready)),
        Field::toned(format!("{encrypted}/{all}"), tone(encrypted)),
        names.join(" ").into(),
        service.waypoint.clone().unwrap_or_default().into(),
    ]
}
