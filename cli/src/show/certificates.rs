//! `weft certs`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use weft_model::view::CertificateRow;

use crate::arguments::{Format, ShowOptions};
use crate::output::{self, Field, Tone};
use crate::programs::ask::{Whom, ask};

/// Prints the certificates. The exit code is 1 when one has expired.
pub fn run(options: &ShowOptions) -> anyhow::Result<ExitCode> {
    let mut answers = ask::<Vec<CertificateRow>>(&options.programs, Whom::Agents, "certs")?;
    let mut rows = answers.take_rows();
    let wanted = |row: &CertificateRow, namespace: &str| row.identity.contains(&format!("/ns/{namespace}/sa/"));
    rows.retain(|row| options.namespace.as_deref().is_none_or(|namespace| wanted(&row.value, namespace)));
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = i64::try_from(since_epoch.as_secs())?;
    match options.output {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let header = ["identity", "state", "expires in", "renewed in", "workloads", "serial", "last error"];
            let fields = rows.iter().map(|said| (said.agent.as_deref(), row(&said.value, now)));
            output::by_agent(&header, fields, "No certificates: no pod of this node is in the mesh.")?;
        }
    }
    let expired = rows.iter().any(|row| row.value.state == "expired");
    Ok(answers.end(if expired { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}

fn row(certificate: &CertificateRow, now: i64) -> Vec<Field> {
    let tone = match &*certificate.state {
        "valid" => Tone::Good,
        "expired" => Tone::Bad,
        _ => Tone::Warn,
    };
    vec![
        output::identity(&certificate.identity).into(),
        Field::toned(&*certificate.state, tone),
        until(certificate.not_after, now).into(),
        until(certificate.next_request, now).into(),
        certificate.users.to_string().into(),
        (&*certificate.serial).into(),
        certificate.last_error.clone().unwrap_or_default().into(),
    ]
}

fn until(when: i64, now: i64) -> String {
    match u64::try_from(when.saturating_sub(now)) {
        _ if when == 0 => "-".to_owned(),
        Ok(seconds) => output::duration(seconds.saturating_mul(1000)),
        Err(_) => "now".to_owned(),
    }
}
